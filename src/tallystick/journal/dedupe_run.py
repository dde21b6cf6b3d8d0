"""Runs: what dedupe remembers, in immutable files (docs/formats/dedupe.md).

    header, 4,096 bytes   magic "TSDEDUP1" | crc32c u32 | length u32 | JSON `RunHeader`, padded with zeros
    ids table             rows: digest's second half 8 | content 16 | seq 8 | index 8 | leaf hash 32
    made table            rows: digest's second half 8; prefixes of ids made here

The content column is XORed with an AES-256-CTR key stream, counter = row number, under the run's own random key, which the
header holds wrapped. Each key encrypts one file once.
"""

from __future__ import annotations

import os
import secrets
import struct
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

import google_crc32c
import msgspec
import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from tallystick.durable import sync_data, sync_dir, sync_file, write_all
from tallystick.errors import IntegrityError
from tallystick.journal.dedupe_bloom import Words
from tallystick.journal.dedupe_table import Table, TableInfo, TableWriter
from tallystick.telemetry import log

_MAGIC = b"TSDEDUP1"
_HEADER_BLOCK = 4096
_HEADER_HEAD = struct.Struct(">8sII")
_ROW = np.dtype([("low", "<u8"), ("content", "u1", (16,)), ("seq", "<u8"), ("index", "<u8"), ("leaf", "u1", (32,))])
_MADE_ROW = np.dtype([("low", "<u8")])
_ENTRY = struct.Struct("<Q16sQQ32s")
_SLICE_ROWS = 16_384
_SYNC_ROWS = 131_072
_KEY_AAD = b"ts-dedupe-run1\x00"

Rows: TypeAlias = NDArray[np.void]


class KeyWrapper(Protocol):
    """The part of the key store that a run needs."""

    def wrap(self, key: bytes, aad: bytes) -> bytes: ...

    def unwrap(self, blob: bytes, aad: bytes) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of an id: its content's digest and where its event is."""

    content: bytes
    seq: int
    index: int
    leaf_hash: bytes


class RunHeader(msgspec.Struct, frozen=True):
    """``events``: how many events the run stands for. ``wrapped``: the key of the content column."""

    v: int
    first_seq: int
    last_seq: int
    events: int
    wrapped: bytes
    ids: TableInfo
    made: TableInfo


class Run:
    """One open run. Its file may be unlinked while a look-up still uses it; the descriptor closes with the object."""

    def __init__(self, path: Path, keys: KeyWrapper) -> None:
        """Raises IntegrityError, KeysMissingError, OSError."""
        self.path = path
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        weakref.finalize(self, os.close, fd)
        self.header = _read_header(fd, path)
        self._key = keys.unwrap(self.header.wrapped, _KEY_AAD + path.name.encode())
        self.ids = Table(fd, self.header.ids)
        self.made = Table(fd, self.header.made)

    @property
    def entries(self) -> int:
        """Rows of both tables."""
        return self.header.ids.count + self.header.made.count

    def find(self, high: int, low: int) -> Entry | None:
        """The entry of an id digest."""
        found = self.ids.find(high, low)
        if found is None:
            return None
        number, row = found
        _low, content, seq, index, leaf_hash = _ENTRY.unpack(row)
        return Entry(_xor_stream(self._key, number, content), seq, index, leaf_hash)

    def slices(self, bounds: list[int]) -> Iterator[tuple[Words, Rows]]:
        """The ids table in pieces, contents in clear; see `Table.slices`."""
        for start, keys, data in self.ids.slices(bounds):
            rows = np.frombuffer(bytearray(data), _ROW)
            _hide_contents(rows, self._key, start)
            yield keys, rows


def make_rows(ids: Words, contents: bytes, seqs: Words, indexes: Words, leaf_hashes: bytes) -> Rows:
    """Rows for the ids table, from columns; ``ids`` are the second halves of the digests."""
    rows = np.zeros(len(ids), _ROW)
    rows["low"], rows["seq"], rows["index"] = ids, seqs, indexes
    rows["content"] = np.frombuffer(contents, np.uint8).reshape(-1, 16)
    rows["leaf"] = np.frombuffer(leaf_hashes, np.uint8).reshape(-1, 32)
    return rows


def make_made_rows(prefixes: Words) -> Rows:
    """Rows for the made table, from the second halves of the prefix digests."""
    return prefixes.astype("<u8").view(_MADE_ROW)


class RunWriter:
    """Writes one run. Nothing refers to the file before `finish` returned; a crash before that leaves a file to remove."""

    def __init__(self, path: Path, keys: KeyWrapper, ids: int, made: int) -> None:
        self._path = path
        self._key = secrets.token_bytes(32)
        self._wrapped = keys.wrap(self._key, _KEY_AAD + path.name.encode())
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        self._ids = TableWriter(self._fd, _HEADER_BLOCK, ids, _ROW.itemsize)
        self._made = TableWriter(self._fd, self._ids.end, made, _MADE_ROW.itemsize)
        self._sync_at = _SYNC_ROWS

    def add(self, keys: Words, rows: Rows) -> None:
        """The next ids, in any order among themselves, but all higher than those before."""
        order = np.argsort(keys, kind="stable")
        rows = rows[order]
        _hide_contents(rows, self._key, self._ids.written)
        self._ids.add(keys[order], rows.tobytes())
        if self._ids.written >= self._sync_at:
            # Only so that `finish` has little left to sync, and the journal's own syncs need not wait behind it.
            self._sync_at = self._ids.written + _SYNC_ROWS
            sync_data(self._fd)

    def add_made(self, keys: Words, rows: Rows) -> None:
        """The next prefixes; as `add`."""
        order = np.argsort(keys, kind="stable")
        self._made.add(keys[order], rows[order].tobytes())

    def finish(self, first_seq: int, last_seq: int, events: int) -> None:
        """Make the run durable and close it. Raises OSError."""
        header = RunHeader(1, first_seq, last_seq, events, self._wrapped, self._ids.finish(), self._made.finish())
        data = msgspec.json.encode(header)
        write_all(self._fd, (_HEADER_HEAD.pack(_MAGIC, google_crc32c.value(data), len(data)) + data).ljust(_HEADER_BLOCK, b"\0"), 0)
        sync_file(self._fd)
        sync_dir(self._path.parent)

    def close(self) -> None:
        os.close(self._fd)


def merge_runs(runs: list[Run], path: Path, keys: KeyWrapper, between: Callable[[], None]) -> int:
    """Write one run with all rows of ``runs``, in pieces of about 16,384; returns how many of them were found damaged.

    ``between`` is called after each piece: a merge takes seconds, and other work need not wait for it.
    """
    ids, made = sum(run.header.ids.count for run in runs), sum(run.header.made.count for run in runs)
    pieces = max(1, max(ids, made) // _SLICE_ROWS)
    bounds = [(number << 64) // pieces for number in range(1, pieces + 1)]
    damaged: set[Path] = set()
    writer = RunWriter(path, keys, ids, made)
    try:
        for keys_part, rows in _merged([run.slices(bounds) for run in runs], runs, damaged):
            writer.add(keys_part, rows)
            between()
        for keys_part, rows in _merged([_made_slices(run, bounds) for run in runs], runs, damaged):
            writer.add_made(keys_part, rows)
            between()
        writer.finish(
            min(run.header.first_seq for run in runs),
            max(run.header.last_seq for run in runs),
            sum(run.header.events for run in runs),
        )
    finally:
        writer.close()
    return len(damaged)


def _made_slices(run: Run, bounds: list[int]) -> Iterator[tuple[Words, Rows]]:
    for _start, keys, data in run.made.slices(bounds):
        yield keys, np.frombuffer(data, _MADE_ROW)


def _merged(sources: list[Iterator[tuple[Words, Rows]]], runs: list[Run], damaged: set[Path]) -> Iterator[tuple[Words, Rows]]:
    """Piece by piece from all sources at once. A source that proves damaged at its end is reported; what it held is kept."""
    while True:
        pieces = []
        for source, run in zip(sources, runs, strict=True):
            try:
                pieces.append(next(source))
            except StopIteration:
                continue
            except IntegrityError as error:
                damaged.add(run.path)
                log.error("dedupe_run_damaged", path=str(run.path), error=str(error))
        if not pieces:
            return
        yield np.concatenate([keys for keys, _ in pieces]), np.concatenate([rows for _, rows in pieces])


def _read_header(fd: int, path: Path) -> RunHeader:
    block = os.pread(fd, _HEADER_BLOCK, 0)
    if len(block) == _HEADER_BLOCK:
        magic, crc, length = _HEADER_HEAD.unpack_from(block)
        data = block[_HEADER_HEAD.size : _HEADER_HEAD.size + length]
        if magic == _MAGIC and google_crc32c.value(data) == crc:
            return msgspec.json.decode(data, type=RunHeader)
    raise IntegrityError("this is no whole dedupe run", place=str(path))


def _hide_contents(rows: Rows, key: bytes, first_row: int) -> None:
    """XOR the content column with the key stream, in place; twice is the identity."""
    hidden = _xor_stream(key, first_row, rows["content"].tobytes())
    rows["content"] = np.frombuffer(hidden, np.uint8).reshape(-1, 16)


def _xor_stream(key: bytes, first_row: int, data: bytes) -> bytes:
    return Cipher(algorithms.AES(key), modes.CTR(first_row.to_bytes(16, "big"))).encryptor().update(data)
