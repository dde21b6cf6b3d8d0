"""What the journal's tests share: tiny keys, one tenant or two, and ways to damage files."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Callable, Coroutine
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from tallystick.config import DataSettings, JournalSettings, Size
from tallystick.journal.entries import Append, Committed, TenantBatch
from tallystick.journal.frame import Frame, FrameType
from tallystick.journal.reader import DamagedSpan, JournalReader
from tallystick.journal.segment import SegmentHeader, list_segments
from tallystick.journal.tenants import Tenant
from tallystick.journal.writer import Journal

ACME = Tenant("acme", "aaaaaaaaaaaaaaaa", 0.0)
GLOBEX = Tenant("globex", "bbbbbbbbbbbbbbbb", 0.0)
DATA = DataSettings(reserve=Size("64KiB"), free_min=Size("1MiB"))
T = TypeVar("T")


class PlainKeys:
    """A key store that wraps by exclusive or: enough to tell a right key from a wrong one."""

    def wrap(self, key: bytes, aad: bytes) -> bytes:
        return bytes(a ^ b for a, b in zip(key, sha256(aad).digest(), strict=True))

    unwrap = wrap

    def derive(self, purpose: str) -> bytes:
        return purpose.encode().ljust(32, b"k")


KEYS = PlainKeys()


def settings(segment: str = "1MiB", queue: str = "8MiB") -> JournalSettings:
    return JournalSettings(segment_size=Size(segment), queue=Size(queue), dedupe_events=10_000)


def open_journal(data: Path, *, segment: str = "1MiB", queue: str = "8MiB", **known: Any) -> Journal:
    data.mkdir(exist_ok=True, parents=True)
    return Journal.open(data, KEYS, settings(segment, queue), DATA, **known)


_made = 0


def batch(
    lines: list[bytes], tenant: Tenant = ACME, ids: list[bytes] | None = None, contents: list[bytes] | None = None
) -> TenantBatch:
    """With ids made here, or with ``ids`` (any bytes; padded to digests) that the sender gave."""
    global _made
    _made += 1
    if ids is None:
        return TenantBatch(tenant, lines, [None] * len(lines), [None] * len(lines), f"01234567-89ab-7cde-8f01-{_made:06d}")
    digests = [item.ljust(16, b".")[:16] for item in ids]
    return TenantBatch(tenant, lines, list(digests), [item.ljust(16, b"=")[:16] for item in contents or lines])


async def append(journal: Journal, *lines: bytes, tenant: Tenant = ACME) -> Committed:
    return await journal.append(Append([batch(list(lines), tenant)]))


def with_journal(data: Path, work: Callable[[Journal], Coroutine[Any, Any, T]], **options: Any) -> T:
    """Open, work, close."""

    async def run() -> T:
        journal = open_journal(data, **options)
        try:
            return await work(journal)
        finally:
            await journal.close()

    return asyncio.run(run())


def write(data: Path, *requests: list[bytes], tenant: Tenant = ACME, **options: Any) -> None:
    """One life of a writer: each request is one append of its lines, one after the other."""

    async def work(journal: Journal) -> None:
        for lines in requests:
            await append(journal, *lines, tenant=tenant)

    with_journal(data, work, **options)


def read_all(data: Path, **options: Any) -> list[Frame | DamagedSpan]:
    reader = JournalReader(data, KEYS, **options)
    position, found = reader.oldest(), []
    while True:
        items, following = reader.read(position)
        if following == position:
            reader.close()
            return found
        found += items
        position = following


def events(data: Path, tenant: Tenant = ACME) -> dict[int, bytes]:
    """Index → line of all events that can be read."""
    found: dict[int, bytes] = {}
    for item in read_all(data):
        if isinstance(item, Frame) and item.type == FrameType.EVENTS and item.handle == tenant.handle:
            for place, line in enumerate(item.lines()):
                assert item.first_index + place not in found
                found[item.first_index + place] = line
    return found


def spans(data: Path) -> list[DamagedSpan]:
    return [item for item in read_all(data) if isinstance(item, DamagedSpan)]


def frames(data: Path, kind: FrameType = FrameType.EVENTS) -> list[Frame]:
    return [item for item in read_all(data) if isinstance(item, Frame) and item.type == kind]


def segments(data: Path) -> list[tuple[Path, SegmentHeader]]:
    return list_segments(data / "journal").segments


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def flip(path: Path, offset: int) -> None:
    byte = path.read_bytes()[offset]
    overwrite(path, offset, bytes([byte ^ 1]))


def copy_dir(source: Path, target: Path) -> Path:
    """The data directory as kill -9 leaves it: what was written, without the closing steps.

    MARK is copied first, so that it is not newer than the segments if the idle mark is written meanwhile.
    """
    paths = sorted(source.rglob("*"), key=lambda path: path.name != "MARK")
    for path in paths:
        copy = target / path.relative_to(source)
        (copy if path.is_dir() else copy.parent).mkdir(parents=True, exist_ok=True)
        if path.is_file():
            with contextlib.suppress(FileNotFoundError):  # a temporary file that was renamed meanwhile
                shutil.copyfile(path, copy)
    return target
