"""Dead letters: events that a destination refused for good, or that were gone before they could be sent.

One encrypted log a destination (``dead-letters/<name>.log``), written by the dispatcher alone. A letter holds the index, the
reason, the destination's reply, the attempts and the cut it was part of; **not** the event, which stays where erasure and retention
reach it, in journal and archive: showing or replaying a letter reads it there. Records, JSON:

    {"kind":"letter", destination, tenant, handle, index, event_id, reason, reply, attempts, cut, at}
    {"kind":"replayed", "letters":[ordinals], at}          the destination has these events now
    {"kind":"discarded", "letters":[ordinals], reason, by, at}

Letters are written before the cursor moves past them; a crash between the two writes the letter again, and the second of
the same (handle, index, cut) is passed over when reading.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import msgspec

from tallystick.errors import NotFoundError, TerminalError
from tallystick.privacy.encrypted_log import EncryptedLog
from tallystick.privacy.keys import KeyStore

Status = Literal["open", "replayed", "discarded"]


class Letter(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="letter"):
    """One event's dead letter. ``at`` is Unix seconds."""

    destination: str
    tenant: str
    handle: str
    index: int
    reason: str
    cut: str
    at: float
    attempts: int = 1
    event_id: str = ""
    reply: str = ""


class Replayed(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="replayed"):
    letters: tuple[int, ...]
    at: float


class Discarded(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="discarded"):
    letters: tuple[int, ...]
    reason: str
    by: str
    at: float


class FiledLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A letter with its id (``<destination>:<ordinal>``) and what became of it."""

    id: str
    ordinal: int
    letter: Letter
    status: Status
    settled_at: float | None = None
    discard_reason: str = ""


_Record = Letter | Replayed | Discarded


class DeadLetters:
    """The letters of all destinations of one installation."""

    def __init__(self, data_dir: Path, keys: KeyStore) -> None:
        self._dir = data_dir / "dead-letters"
        self._keys = keys
        self._logs: dict[str, EncryptedLog] = {}

    def append(self, destination: str, letters: list[Letter]) -> list[int]:
        """File letters durably; returns their ordinals. Dispatcher only. Raises OSError; then none counts."""
        return self._log(destination).append([msgspec.json.encode(letter) for letter in letters])

    def mark_replayed(self, destination: str, ordinals: tuple[int, ...], at: float) -> None:
        """The destination has the events of these letters now. Repeating it changes nothing."""
        self._log(destination).append([msgspec.json.encode(Replayed(letters=ordinals, at=at))])

    def discard(self, destination: str, ordinals: tuple[int, ...], *, reason: str, by: str, at: float) -> None:
        """Give letters up for good. The event stays in the log and the account says dead-lettered. Raises TerminalError."""
        if not reason.strip():
            raise TerminalError("a discard needs a reason")
        filed = {letter.ordinal: letter for letter in self.read(destination)}
        for ordinal in ordinals:
            if ordinal not in filed:
                raise NotFoundError(f"no dead letter {destination}:{ordinal}")
            if filed[ordinal].status != "open":
                raise TerminalError(f"dead letter {destination}:{ordinal} is {filed[ordinal].status} already")
        self._log(destination).append([msgspec.json.encode(Discarded(letters=ordinals, reason=reason, by=by, at=at))])

    def destinations(self) -> list[str]:
        """Those that have a log, by name."""
        return sorted(path.stem for path in self._dir.glob("*.log"))

    def read(self, destination: str, *, status: Status | None = None, tenant: str | None = None) -> Iterator[FiledLetter]:
        """Letters of one destination in the order they were filed."""
        settled = self._settled(destination)
        seen: set[tuple[str, int, str]] = set()
        for ordinal, record in self._records(destination):
            if not isinstance(record, Letter):
                continue
            key = record.handle, record.index, record.cut
            if key in seen or (tenant is not None and record.tenant != tenant):
                continue
            seen.add(key)
            found = settled.get(ordinal)
            filed = FiledLetter(
                id=f"{destination}:{ordinal}",
                ordinal=ordinal,
                letter=record,
                status="open" if found is None else "replayed" if isinstance(found, Replayed) else "discarded",
                settled_at=None if found is None else found.at,
                discard_reason=found.reason if isinstance(found, Discarded) else "",
            )
            if status is None or filed.status == status:
                yield filed

    def get(self, letter_id: str) -> FiledLetter:
        """The letter of an id. Raises NotFoundError."""
        destination, ordinal = parse_letter_id(letter_id)
        for filed in self.read(destination):
            if filed.ordinal == ordinal:
                return filed
        raise NotFoundError(f"no dead letter {letter_id}")

    def _settled(self, destination: str) -> dict[int, Replayed | Discarded]:
        settled: dict[int, Replayed | Discarded] = {}
        for _, record in self._records(destination):
            if isinstance(record, Replayed | Discarded):
                settled.update(dict.fromkeys(record.letters, record))
        return settled

    def _records(self, destination: str) -> Iterable[tuple[int, _Record]]:
        for ordinal, data in self._log(destination).read():
            yield ordinal, msgspec.json.decode(data, type=_Record)

    def _log(self, destination: str) -> EncryptedLog:
        if destination not in self._logs:
            path = self._dir / f"{destination}.log"
            self._logs[destination] = EncryptedLog(path, self._keys, f"dead-letters/{destination}")
        return self._logs[destination]


def parse_letter_id(letter_id: str) -> tuple[str, int]:
    """``<destination>:<ordinal>`` taken apart. Raises NotFoundError."""
    destination, _, ordinal = letter_id.rpartition(":")
    if not destination or "/" in destination or not (ordinal.isascii() and ordinal.isdigit()):
        raise NotFoundError(f"no dead letter {letter_id!r}")
    return destination, int(ordinal)
