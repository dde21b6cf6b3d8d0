"""What dedupe says of one batch: which of its events are new, and what a frame keeps of their ids.

Apart from `dedupe`, so that an intake worker, which has no tables, loads nothing of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tallystick.journal.dedupe_digest import encode_section


@dataclass(frozen=True, slots=True)
class First:
    """Where an event was stored the first time."""

    seq: int
    index: int
    leaf_hash: bytes


@dataclass(slots=True)
class Claim:
    """One batch's ids, told apart; positions count from 0 in the batch. Those in ``new`` are held until commit or release.

    ``sent``: how many of the ids are their senders' (`count_sent`).
    """

    handle: str
    id_digests: Sequence[bytes | None]
    content_digests: Sequence[bytes | None]
    prefix: bytes
    sent: int
    new: list[int] = field(default_factory=list)
    duplicates: dict[int, First] = field(default_factory=dict)
    repeats: dict[int, int] = field(default_factory=dict)
    conflicts: list[int] = field(default_factory=list)
    in_flight: list[int] = field(default_factory=list)

    def columns(self) -> tuple[Sequence[int], Sequence[bytes], Sequence[bytes]]:
        """Of the new events with an id of their sender: places among the new ones, id digests, content digests."""
        if not self.sent:
            return (), (), ()
        if len(self.new) == len(self.id_digests) == self.sent:
            return range(len(self.new)), self.id_digests, self.content_digests  # type: ignore[return-value]
        if self.id_digests.count(None) == len(self.id_digests):
            return (), (), ()
        places, ids, contents = [], [], []
        for place, position in enumerate(self.new):
            digest, content = self.id_digests[position], self.content_digests[position]
            if digest is not None and content is not None:
                places.append(place)
                ids.append(digest)
                contents.append(content)
        return places, ids, contents


def count_sent(id_digests: Sequence[bytes | None]) -> int:
    """How many there are."""
    return len([digest for digest in id_digests if digest is not None])


def dedupe_section(claim: Claim) -> bytes:
    """What the frame of the claim's new lines keeps, so that `Dedupe.replay` can put them back."""
    places, ids, contents = claim.columns()
    return encode_section(claim.prefix, len(claim.new), places, ids, contents)
