"""The root log, read from its entries: keys it introduces, heads it quotes, and the times between which they lie."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tallystick.errors import IntegrityError, TallystickError
from tallystick.evidence.account import AccountLog
from tallystick.evidence.checkpoint import open_checkpoint
from tallystick.evidence.entry import ROOT_TYPES, read_entry
from tallystick.evidence.heads import Head
from tallystick.evidence.merkle import HASH_BYTES, leaf_hashes
from tallystick.evidence.note import VerifierKey, parse_vkey
from tallystick.evidence.origin import tree_name
from tallystick.evidence.policy import Policy, read_policy
from tallystick.evidence.trees import TreeFiles
from tallystick.evidence.verify.report import Report

_PIECE = 4096


@dataclass(slots=True)
class Quotes:
    """What the root log says of one tree, in its order: places of `checkpoint` entries, and the quoted sizes and roots."""

    places: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    roots: list[bytes] = field(default_factory=list)


@dataclass(slots=True)
class RootView:
    """The root log's entries, sorted by what later steps ask."""

    keys: dict[str, list[VerifierKey]] = field(default_factory=dict)
    quotes: dict[str, Quotes] = field(default_factory=dict)
    beats: list[tuple[int, str]] = field(default_factory=list)
    policies: dict[int, tuple[str, Policy]] = field(default_factory=dict)
    mark: int = 0

    def take(self, number: int, entry: dict[str, Any]) -> None:
        """Believe entry ``number``, whose hash is the tree's leaf. Raises TallystickError, KeyError, TypeError, ValueError."""
        kind = entry["type"]
        if kind == "key":
            key = parse_vkey(entry["vkey"])
            if key.name != entry["name"]:
                raise IntegrityError("a key entry names another key than it holds")
            self.keys.setdefault(key.name, []).append(key)
        elif kind == "checkpoint":
            checkpoint = open_checkpoint(entry["note"], self.keys.get(entry["origin"], []))
            quotes = self.quotes.setdefault(tree_name(checkpoint.origin), Quotes())
            if checkpoint.origin != entry["origin"] or (quotes.sizes and checkpoint.size < quotes.sizes[-1]):
                raise IntegrityError("a quoted head is of another log, or smaller than one quoted before")
            quotes.places.append(number)
            quotes.sizes.append(checkpoint.size)
            quotes.roots.append(checkpoint.root)
            self.mark = max(self.mark, int(entry["mark"]))
        elif kind == "heartbeat":
            self.beats.append((number, str(entry["at"])))
        elif kind == "policy":
            self.policies[number] = str(entry["at"]), read_policy(entry)

    def sealed_after(self, name: str, index: int) -> str | None:
        """A time before which leaf ``index`` was not quoted yet: the last heartbeat before its first quoted head."""
        quotes = self.quotes.get(name, Quotes())
        at = bisect_right(quotes.sizes, index)
        if at == len(quotes.sizes):
            return None
        beat = bisect_left(self.beats, (quotes.places[at], ""))
        return self.beats[beat - 1][1] if beat else None

    def sealed_before(self, name: str, index: int) -> str | None:
        """A time at which leaf ``index`` was quoted already: the first heartbeat after its first quoted head."""
        quotes = self.quotes.get(name, Quotes())
        at = bisect_right(quotes.sizes, index)
        if at == len(quotes.sizes):
            return None
        beat = bisect_left(self.beats, (quotes.places[at], ""))
        return self.beats[beat][1] if beat < len(self.beats) else None

    def period(self, handle: str, retention_class: str, policy: int) -> str | None:
        """The period that the `policy` entry at this index gives events of a tenant and class."""
        found = self.policies.get(policy)
        return found[1].period(handle, retention_class) if found is not None else None

    def next_policy(self, policy: int) -> str | None:
        """When the policy after that one came into force."""
        return min(((number, at) for number, (at, _) in self.policies.items() if number > policy), default=(0, None))[1]


def read_root(directory: Path, head: Head, tree: TreeFiles, report: Report) -> RootView:
    """Check every entry under the root head against its leaf, and take in what it says. Adds problems."""
    view = RootView()
    for number, line in checked_entries(directory, head.size, tree, report):
        try:
            view.take(number, read_entry(line, ROOT_TYPES))
        except (TallystickError, KeyError, TypeError, ValueError) as error:
            report.fail(f"an entry of the root log cannot be believed: {error}", f"{directory}/entries, entry {number}")
    return view


def checked_entries(directory: Path, size: int, tree: TreeFiles, report: Report) -> Iterator[tuple[int, bytes]]:
    """(number, entry) of the first ``size`` entries whose hash is the tree's leaf; the others become problems."""
    entries = AccountLog(directory)
    try:
        for first in range(0, size, _PIECE):
            count = min(_PIECE, size - first)
            lines = entries.entries(first, count)
            made, stored = leaf_hashes(lines), tree.hashes(0, first, count)
            for place, line in enumerate(lines):
                span = slice(place * HASH_BYTES, (place + 1) * HASH_BYTES)
                if made[span] == stored[span]:
                    yield first + place, line
                else:
                    report.fail(
                        "an entry does not have the hash that is in the tree", f"{directory}/entries, entry {first + place}"
                    )
    except TallystickError as error:
        report.fail(error.message, error.place or str(directory))
    finally:
        entries.close()
