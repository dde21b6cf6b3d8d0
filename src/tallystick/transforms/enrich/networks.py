"""Addresses, and what is known of networks: the narrowest one that holds an address.

A table has one dict for each length of prefix that occurs, by the network's number. A look-up asks them from the longest on; there are
few lengths in any list, and what was asked is remembered above.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Generic, TypeVar

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
T = TypeVar("T")


def address_of(text: str) -> Address | None:
    """The address that ``text`` is, if it is one; of an IPv4 address in the form of IPv6 (``::ffff:192.0.2.1``) the former."""
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return found.ipv4_mapped or found if found.version == 6 else found


def network_of(text: str) -> Network | None:
    """The network, or the single address, that ``text`` names. Bits behind the prefix do not count."""
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def is_public(address: Address) -> bool:
    """Whether it is one of somebody on the internet: not private, shared (RFC 6598), reserved, for documentation, or of a group."""
    return address.is_global and not address.is_multicast


class NetworkTable(Generic[T]):
    """Values by network. One value for each network: the last one put in."""

    def __init__(self) -> None:
        self._tables: dict[tuple[int, int], dict[int, T]] = {}
        """By version and number of bits behind the prefix."""
        self._order: dict[int, list[int]] = {4: [], 6: []}

    def put(self, network: Network, value: T) -> bool:
        """False when there was a value for the very same network."""
        rest = network.max_prefixlen - network.prefixlen
        if (network.version, rest) not in self._tables:
            self._order[network.version] = sorted([*self._order[network.version], rest])
        table = self._tables.setdefault((network.version, rest), {})
        number = int(network.network_address) >> rest
        is_new = number not in table
        table[number] = value
        return is_new

    def holding(self, address: Address) -> Iterator[T]:
        """The values of all networks that hold ``address``, the narrowest first."""
        number, version = int(address), address.version
        for rest in self._order[version]:
            table = self._tables[version, rest]
            if (number >> rest) in table:
                yield table[number >> rest]
