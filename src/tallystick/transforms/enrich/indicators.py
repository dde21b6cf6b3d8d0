"""Indicators, and the values of events that may match them.

    address, network   192.0.2.1   192.0.2.0/24   2001:db8::/32     any address within
    domain             bad.example   *.bad.example   .bad.example   the name itself and every name below it
    hash               32, 40, 56, 64, 96 or 128 hexadecimal digits, `sha256:` and the like before them allowed

A value is an address, a hash, a host's name, or a URL or e-mail address, of which the host counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal
from urllib.parse import urlsplit

from tallystick.transforms.enrich.networks import Address, Network, address_of, network_of

Kind = Literal["network", "domain", "hash"]
_HASH = re.compile(
    r"(?:(?:md5|sha1|sha224|sha256|sha384|sha512):)?((?:[0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{56}|[0-9a-f]{64}|[0-9a-f]{96}|[0-9a-f]{128}))"
)
_DOMAIN = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)+(?:[a-z][a-z0-9-]{0,61}[a-z0-9])")
_VALUE_MAX = 2_048


def read_indicator(text: str) -> tuple[Kind, Network | str] | None:
    """What ``text`` indicates; None: nothing that is known here."""
    network = network_of(text)
    if network is not None:
        return "network", network
    text = text.lower()
    found = _HASH.fullmatch(text)
    if found is not None:
        return "hash", found[1]
    name = _ascii(text.removeprefix("*").removeprefix(".").removesuffix("."))
    return ("domain", name) if _DOMAIN.fullmatch(name) else None


def read_value(text: str) -> tuple[Kind, Address | str] | None:
    """What a value of an event can be looked for as."""
    if len(text) > _VALUE_MAX:
        return None
    text = text.strip().lower()
    found = _HASH.fullmatch(text)
    if found is not None:
        return "hash", found[1]
    host = text if address_of(text) is not None else _host(text)
    address = address_of(host)
    if address is not None:
        return "network", address
    host = _ascii(host.removesuffix("."))
    return ("domain", host) if _DOMAIN.fullmatch(host) else None


def names_above(name: str) -> Iterator[str]:
    """The name and those that it is below, from the longest: ``a.b.example``, ``b.example``."""
    while "." in name:
        yield name
        name = name.partition(".")[2]


def _host(text: str) -> str:
    if "://" in text:
        try:
            return urlsplit(text).hostname or ""
        except ValueError:
            return ""
    return text.rpartition("@")[2]


def _ascii(name: str) -> str:
    """A name in another script as the DNS has it (``xn--``)."""
    if name.isascii():
        return name
    try:
        return name.encode("idna").decode()
    except UnicodeError:
        return ""
