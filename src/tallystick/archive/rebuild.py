"""The catalog made anew from the store: every signed manifest, and the columns of the chunk that it names.

The same code makes the empty catalog of a first start. Marks: everything below a tenant's highest archived index is
archived (a manifest outlives the expiry of its chunk); indexes in between that no chunk has, and no certificate of expiry
names, are noted as lost. What a merge replaced is listed as replaced, so that its
objects are deleted as they would have been. The chunk itself is read because filters are nowhere else, and its digest and
indexes are held against the manifest on the way.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tallystick.archive.catalog import CatalogDamagedError, CatalogWriter, ChunkRow, MarkMove
from tallystick.archive.certificate import expired_ranges
from tallystick.archive.chunk import parse_name, read_columns
from tallystick.archive.columns import CHUNK_SCHEMA
from tallystick.archive.filters import build_filters
from tallystick.archive.reader import ChunkSource
from tallystick.archive.writer import describe
from tallystick.durable import unlink
from tallystick.errors import CheckpointError, IntegrityError, NotFoundError
from tallystick.evidence.manifest import Manifest, indexes_digest, manifest_key_name, open_manifest
from tallystick.evidence.note import vkey
from tallystick.privacy.keys import KeyStore
from tallystick.telemetry import log

_SLIM = [name for name in CHUNK_SCHEMA.names if name != "line"]


def open_catalog(path: Path) -> CatalogWriter | None:
    """The catalog for its writer, or None when there is none or it is damaged: then `rebuild_catalog`."""
    catalog = CatalogWriter(path)
    try:
        if catalog.is_complete:
            return catalog
    except CatalogDamagedError as error:
        log.error("the catalog will be rebuilt", error=str(error))
    catalog.close()
    return None


def discard_catalog(path: Path) -> None:
    """Remove a catalog that turned out to be damaged: `open_catalog` then finds none, and it is rebuilt.

    The log goes before the file: after a crash in between there is no database, or one without its log, which is whole or
    damaged; never the log of an older file beside a new one, because a rebuild begins here as well.
    """
    for suffix in ("-wal", "-shm", ""):
        unlink(path.with_name(path.name + suffix))


def rebuild_catalog(path: Path, server_name: str, keys: KeyStore, source: ChunkSource, at: int) -> CatalogWriter:
    """Replace the catalog by one made from the store; ``at`` is the Unix second from which replaced chunks wait.

    A chunk or manifest that is missing, damaged or not signed by us is left out and reported: searching it is impossible,
    and `verify` names it. Raises DestinationUnavailableError; then there is still no catalog and it can be repeated.
    """
    discard_catalog(path)
    catalog = CatalogWriter(path)
    with catalog.creating():
        found: dict[str, tuple[ChunkRow, Any]] = {}
        ends: dict[str, int] = {}
        successors: dict[str, str] = {}
        for manifest in _manifests(source, server_name, keys):
            handle = parse_name(manifest.object).handle
            ends[handle] = max(ends.get(handle, 0), manifest.last + 1)
            chunk = _read_chunk(manifest, source, keys)
            if chunk is not None:
                row, filters, runs = chunk
                catalog.add_chunks([(row, filters)])
                found[manifest.chunk_id] = row, runs
                successors.update(dict.fromkeys(manifest.replaces, manifest.chunk_id))
        for chunk_id in successors.keys() & found.keys():
            catalog.mark_replaced(bytes.fromhex(chunk_id), bytes.fromhex(successors[chunk_id]), at)
        _set_marks(catalog, [chunk for chunk_id, chunk in found.items() if chunk_id not in successors], ends)
    log.info("catalog rebuilt", path=str(path), chunks=len(found))
    return catalog


def _manifests(source: ChunkSource, server_name: str, keys: KeyStore) -> Iterator[Manifest]:
    """The manifests in the store that our key signed and that lie beside the chunk they speak of."""
    name = manifest_key_name(server_name)
    vkeys: list[str] | None = None
    for path, note in source.manifests():
        if vkeys is None:
            vkeys = [vkey(name, keys.signing_key(name).public_key())]
        try:
            manifest = open_manifest(note.decode(), vkeys)
        except (CheckpointError, UnicodeDecodeError) as error:
            log.error("a manifest in the archive is not ours; its chunk is left out", object=path, error=str(error))
            continue
        if parse_name(manifest.object).manifest_path != path:
            log.error("a manifest in the archive lies in the wrong place; its chunk is left out", object=path)
            continue
        yield manifest


def _read_chunk(manifest: Manifest, source: ChunkSource, keys: KeyStore) -> tuple[ChunkRow, dict[str, bytes], Any] | None:
    """Row, filters and runs of indexes (`_runs`) of a chunk that is as its manifest says, else None."""
    try:
        data = source.get(manifest.object)
        if hashlib.sha256(data).hexdigest() != manifest.sha256:
            raise IntegrityError("a chunk is not the one its manifest was signed for", place=manifest.object)
        values = read_columns(source.open_chunk(manifest.object, data), _SLIM, place=manifest.object)
        indexes = values.column("index").to_numpy()
        if indexes_digest(indexes.tolist()) != manifest.indexes_sha256:
            raise IntegrityError("a chunk holds other indexes than its manifest says", place=manifest.object)
        name = parse_name(manifest.object)
        epoch_key = keys.epoch_key(name.handle, name.retention_class, name.month)
    except NotFoundError as error:
        log.info("a chunk is left out of the catalog: it has expired, or is missing", object=manifest.object, error=str(error))
        return None
    except IntegrityError as error:
        log.error("a chunk cannot be read and is left out of the catalog", object=manifest.object, error=str(error))
        return None
    return describe(name, values, data), build_filters(values, epoch_key, name.chunk_id), _runs(indexes)


def _set_marks(catalog: CatalogWriter, chunks: list[tuple[ChunkRow, Any]], ends: dict[str, int]) -> None:
    """``ends``: by handle, behind the highest index that any manifest names, also of a chunk that has expired."""
    data_dir = catalog.path.parent
    by_handle: dict[str, list[Any]] = {handle: _expired(data_dir, handle) for handle in ends}
    for row, runs in chunks:
        by_handle[row.handle].append(runs)
    for handle, parts in by_handle.items():
        if not parts:
            continue
        runs = np.concatenate(parts)
        runs = runs[np.argsort(runs[:, 0])]
        starts, stops = np.append(runs[:, 0], runs[-1, 1]), np.append(0, runs[:, 1])
        if (starts < stops).any():
            log.error("chunks of one tenant hold the same indexes; searches show these events twice", handle=handle)
        gaps = [(handle, int(stop), int(start - stop)) for start, stop in zip(starts, stops, strict=True) if start > stop]
        catalog.add_chunks([], [MarkMove(handle, 0, max(int(runs[:, 1].max()), ends[handle]))], gaps)


def _expired(data_dir: Path, handle: str) -> list[Any]:
    """The runs that certificates of expiry name, for which there need be no chunk."""
    runs = [(first, first + count) for first, count in expired_ranges(data_dir, handle)]
    return [np.array(runs, dtype=np.int64)] if runs else []


def _runs(indexes: Any) -> Any:
    """Ascending indexes as an array of [first, end) pairs without gaps inside: small even for a large archive."""
    breaks = np.flatnonzero(np.diff(indexes) != 1) + 1
    firsts = indexes[np.append(0, breaks)]
    lasts = indexes[np.append(breaks - 1, len(indexes) - 1)]
    return np.column_stack((firsts, lasts + 1))
