"""Puts chunks into the store and the catalog, in an order that any crash leaves repairable.

One round, for the archiver's flush as for a merge:

1. *intent*: the names of all objects of the round, in the state file `cursors/archiver.intent`
2. chunk, create-only; then its signed manifest, create-only
3. catalog: chunks and marks (or the replacement) in one transaction
4. the intent is emptied
5. only then the caller moves its cursor, and segments may be deleted

What a crash means
    before 1      nothing happened
    1 to 3        objects that no catalog row names; `settle` deletes them and the round is made again, under new ids
    3 to 4        the round counts; `settle` finds the rows and only empties the intent
    4 to 5        the journal brings the same events again; those below the mark are passed over
If the catalog is lost too, `settle` runs before it is rebuilt: while an intent stands, the journal (or the merged chunks)
still has every event of the round, so deleting its objects loses nothing and no event is archived twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from tallystick.archive.buffer import Taken
from tallystick.archive.catalog import CatalogWriter, ChunkRow, MarkMove
from tallystick.archive.chunk import FLUSH_LEVEL, MERGE_LEVEL, ChunkName, chunk_key, encode_chunk, new_chunk_id, parse_name
from tallystick.archive.columns import group_lines
from tallystick.archive.filters import build_filters
from tallystick.archive.store import ArchiveStore
from tallystick.durable import StateFile, make_dir
from tallystick.errors import NotFoundError, TransientError
from tallystick.evidence.manifest import Manifest, indexes_digest, manifest_key_name, sign_manifest
from tallystick.evidence.origin import event_origin
from tallystick.privacy.keys import KeyStore
from tallystick.telemetry import log

INTENT = "archiver.intent"


class ChunkWriter:
    """The archiver's hand. One object per data directory; not thread-safe."""

    def __init__(self, data_dir: Path, server_name: str, keys: KeyStore, store: ArchiveStore) -> None:
        make_dir(data_dir / "cursors")
        self._intent = StateFile(data_dir / "cursors" / INTENT)
        self._intended = self._load_intent()
        self._server_name = server_name
        self._keys = keys
        self._store = store

    def settle(self, catalog: CatalogWriter | None) -> None:
        """Clean up after a round that did not end. ``catalog`` is None when it is lost. Raises DestinationUnavailableError."""
        for stem in self._intended:
            if catalog is None or catalog.chunk(parse_name(stem).chunk_id) is None:
                log.info("deleting an object of an interrupted round", object=stem)
                self._store.delete(f"{stem}.manifest")
                self._store.delete(f"{stem}.parquet")
        if self._intended:
            self._intend([])

    def archive(self, catalog: CatalogWriter, windows: Sequence[Taken]) -> list[ChunkRow]:
        """One round: the chunks of these tenants' windows, and their marks. Raises TransientError; then call `settle` and again."""
        parts: list[tuple[ChunkName, pa.Table]] = []
        for window in windows:
            for (retention_class, month), batches in group_lines(window.lines, window.indexes, window.seqs).items():
                table = pa.Table.from_batches(batches)
                parts.append((_name(window.handle, retention_class, month, table), table))
        self._intend([name.stem for name, _ in parts])
        chunks = [self._put(name, [table], (), FLUSH_LEVEL) for name, table in parts]
        marks = [MarkMove(window.handle, window.start, window.end) for window in windows]
        catalog.add_chunks(chunks, marks, [(window.handle, *span) for window in windows for span in window.lost])
        self._intend([])
        return [row for row, _filters in chunks]

    def merge(self, catalog: CatalogWriter, rows: Sequence[ChunkRow], tables: Iterable[pa.Table], at: int) -> ChunkRow:
        """One round: a chunk of ``tables``, the rows of adjacent chunks ``rows`` in order, takes their place at Unix second ``at``."""
        first = rows[0]
        day = parse_name(first.name).day
        name = ChunkName(first.handle, first.retention_class, day, first.first, rows[-1].last, new_chunk_id())
        self._intend([name.stem])
        replaced = [row.chunk_id for row in rows]
        row, filters = self._put(name, tables, replaced, MERGE_LEVEL)
        catalog.replace_chunks(row, filters, replaced, at)
        self._intend([])
        return row

    def keep(self, catalog: CatalogWriter, row: ChunkRow, kept: Mapping[str, pa.Table]) -> list[ChunkRow]:
        """One round: chunks of the rows in ``kept``, by the class that they get, take the place of one that expires."""
        day = parse_name(row.name).day
        names = {
            name: ChunkName(row.handle, name, day, table["index"][0].as_py(), table["index"][-1].as_py(), new_chunk_id())
            for name, table in kept.items()
        }
        self._intend([name.stem for name in names.values()])
        chunks = [self._put(names[name], [table], (), MERGE_LEVEL) for name, table in kept.items()]
        catalog.swap_chunk(row.chunk_id, chunks)
        self._intend([])
        return [made for made, _filters in chunks]

    def _put(
        self, name: ChunkName, tables: Iterable[pa.Table], replaces: Sequence[bytes], level: int
    ) -> tuple[ChunkRow, dict[str, bytes]]:
        epoch_key = self._keys.epoch_key(name.handle, name.retention_class, name.month, create=True)
        slim: list[pa.Table] = []
        data = encode_chunk(_watch(tables, slim), chunk_key(epoch_key, name.chunk_id), level=level)
        values = pa.concat_tables(slim)
        row = describe(name, values, data)
        manifest = Manifest(
            origin=event_origin(self._server_name, name.handle),
            chunk_id=name.chunk_id.hex(),
            object=name.path,
            retention_class=name.retention_class,
            first=row.first,
            last=row.last,
            count=row.count,
            indexes_sha256=indexes_digest(values.column("index").to_pylist()),
            size=row.size,
            sha256=row.sha256.hex(),
            replaces=tuple(chunk_id.hex() for chunk_id in replaces),
        )
        note = self._sign(manifest)
        self._store.put_new(name.path, data)
        self._store.put_new(name.manifest_path, note.encode())
        return row, build_filters(values, epoch_key, name.chunk_id)

    def _sign(self, manifest: Manifest) -> str:
        key_name = manifest_key_name(self._server_name)
        try:
            return sign_manifest(manifest, key_name, self._keys.signing_key(key_name))
        except NotFoundError as error:
            raise TransientError(
                "the manifest key is not made yet", place=key_name, hint="The sealer makes it when it starts"
            ) from error

    def _intend(self, stems: Sequence[str]) -> None:
        self._intent.save(msgspec.json.encode(stems))
        self._intended = list(stems)

    def _load_intent(self) -> list[str]:
        payload = self._intent.load()
        if self._intent.is_damaged():
            log.error(
                "the archiver's intent file is damaged; objects of an interrupted round may stay", path=str(self._intent.path)
            )
        return msgspec.json.decode(payload, type=list[str]) if payload else []


def describe(name: ChunkName, values: pa.Table, data: bytes) -> ChunkRow:
    """The catalog's row of a chunk, from its columns (``line`` is not needed) and its bytes."""
    occurred, received = _bounds(values.column("occurred_at")), _bounds(values.column("received_at"))
    return ChunkRow(
        chunk_id=name.chunk_id,
        handle=name.handle,
        retention_class=name.retention_class,
        month=name.month,
        first=name.first,
        last=name.last,
        count=values.num_rows,
        occurred_min=occurred[0],
        occurred_max=occurred[1],
        received_min=received[0],
        received_max=received[1],
        size=len(data),
        sha256=hashlib.sha256(data).digest(),
        name=name.path,
    )


def _bounds(column: Any) -> tuple[int | None, int | None]:
    found = pc.min_max(column.cast(pa.int64()))
    return found["min"].as_py(), found["max"].as_py()


def _name(handle: str, retention_class: str, month: str, table: pa.Table) -> ChunkName:
    indexes, first_time = table.column("index"), table.column("received_at")[0].as_py()
    day = first_time.strftime("%Y-%m-%d") if first_time is not None else f"{month}-01"
    return ChunkName(handle, retention_class, day, indexes[0].as_py(), indexes[-1].as_py(), new_chunk_id())


def _watch(tables: Iterable[pa.Table], slim: list[pa.Table]) -> Iterator[pa.Table]:
    """Pass tables on and keep all but their lines, the large part."""
    for table in tables:
        slim.append(table.drop_columns(["line"]))
        yield table
