"""A bounded number of bytes that many share, so that one who takes all can get never keeps the others out.

A holder may hold as much as is left free by all (dynamic thresholds, Choudhury and Hahne, "Dynamic Queue Length Thresholds for
Shared-Memory Packet Switches", 1998): alone it gets half of the bound, among N that all want more each gets a share of N + 1,
and one share is always free for whoever comes next. No list of holders has to be known, and nothing is set aside for idle ones.
"""

from __future__ import annotations

from tallystick.holdings import Holdings, OwnHoldings


class SharedBytes:
    """Bytes held, in all and by holder, as ``holdings`` has it. ``bytes_max`` is passed only by a single take on an empty store."""

    __slots__ = ("_holdings", "bytes_max")

    def __init__(self, bytes_max: int, holdings: Holdings | None = None) -> None:
        self.bytes_max = bytes_max
        self._holdings = holdings or OwnHoldings()

    @property
    def total(self) -> int:
        """Held by all."""
        return self._holdings.total

    def has_room(self, holder: str, size: int, *, instead_of: int = 0, is_own: bool = False) -> bool:
        """True when ``holder`` may hold ``size`` bytes more, having given back ``instead_of`` of its own.

        ``is_own``: for the installation's own work the bound holds, the share does not.
        """
        total = self._holdings.total - instead_of
        if not total:
            return True
        held = 0 if is_own else self._holdings.held(holder) - instead_of
        return held + size <= self.bytes_max - total

    def take(self, holder: str, size: int) -> None:
        """Hold ``size`` bytes more."""
        self._holdings.add(holder, size)

    def give(self, holder: str, size: int) -> None:
        """Give ``size`` bytes back."""
        self._holdings.add(holder, -size)

    def held(self, holder: str) -> int:
        """What ``holder`` holds now."""
        return self._holdings.held(holder)
