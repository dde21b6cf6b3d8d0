"""Destination `object_store`: one object per cut, in a directory, S3, GCS or Azure, through obstore; exactly once.

How exactly-once works: an object's name is made of the cut's range and hash, so the same cut always has the same name; it is
put create-only; when the store says that the name exists, what is there is compared: the same bytes mean that an earlier
attempt took effect and its answer was lost. Other bytes are never overwritten: the destination parks and says so.

    <prefix>/<tenant>/<yyyy>/<mm>/<dd>/<first>-<last>-<hash>.jsonl.zst
    <prefix>/<tenant>/<yyyy>/<mm>/<dd>/<first>-<last>-<hash>.jsonl.zst.proof

The date is the day on which the cut's first event was received: part of the event, so no clock changes the name. The
sidecar `.proof` (JSON) names range, indexes, batch root and the signed checkpoint; it is put after the object, and the cut is
settled only when both are there.

Whether the store honours create-only is tried before the first cut (two puts of one key: created, then exists). One that does
not is used all the same, but ``effective_guarantee`` says "at least once", in status and console.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import secrets
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import msgspec
import obstore
from msgspec import Meta, field
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import LocalStore

from tallystick.archive.store import open_remote
from tallystick.config import DestinationSettings, Duration
from tallystick.destinations.encodings import EncodingSettings
from tallystick.destinations.encodings.registry import Shape
from tallystick.destinations.object_lock import LockError, ObjectLock, ObjectLockSettings
from tallystick.durable import make_dir, publish_new, sync_dir
from tallystick.errors import ConfigError, DestinationUnavailableError
from tallystick.evidence.entry import event_hashes
from tallystick.evidence.merkle import joined_root
from tallystick.plugin import Answer, AnswerKind, BatchDefaults, Cut
from tallystick.telemetry import log

_PARKING = (PermissionDeniedError, UnauthenticatedError, NotFoundError, PermissionError, FileNotFoundError, NotADirectoryError)
_NAME = re.compile(r"0{2}(\d{18})-0{2}\d{18}-[0-9a-f]{16}\.\S+")
_SCHEMES = ("s3://", "gs://", "az://")


class ObjectStoreSettings(EncodingSettings, frozen=True, kw_only=True):
    """`type = "object_store"`"""

    carries: ClassVar[tuple[Shape, ...]] = ("json", "text", "whole")

    url: Annotated[str, Meta(description="A directory, or s3://bucket/prefix, gs://bucket/prefix, az://container/prefix.")]
    compression: Annotated[
        Literal["none", "zstd", "gzip"], Meta(description="Framing of each object; Parquet files have their own.")
    ] = "zstd"
    timeout: Annotated[Duration, Meta(description="Longest time for one request.")] = field(default_factory=lambda: Duration("30s"))
    options: Annotated[
        dict[str, str], Meta(description="Options of the store as obstore names them: endpoint, region, access_key_id …")
    ] = field(default_factory=dict)

    object_lock: Annotated[
        ObjectLockSettings | None, Meta(description="S3 Object Lock for each object and proof: `{ mode, period }`.")
    ] = None

    def rooted(self, base_dir: Path) -> ObjectStoreSettings:
        if self.url.startswith(_SCHEMES):
            return self
        return msgspec.structs.replace(self, url=str(base_dir / self.url))

    def check(self) -> None:
        if self.object_lock is not None:
            self.object_lock.check()
            if not self.url.startswith("s3://"):
                raise ConfigError("object_lock: only S3 has it", hint="Leave it out, or use a url that begins with s3://")
        if self.url.startswith(_SCHEMES):
            open_store(self)


class _Received(msgspec.Struct):
    received_at: str


class ObjectStoreDestination:
    """One object and one proof per cut."""

    settings: ClassVar[type[DestinationSettings]] = ObjectStoreSettings
    guarantee: ClassVar[str] = "exactly once"
    window: ClassVar[int] = 2
    is_ordered: ClassVar[bool] = False
    batch: ClassVar[BatchDefaults] = BatchDefaults(max_events=10_000, max_bytes=16 << 20, max_age_s=5.0)
    answers: ClassVar[dict[str, str]] = {
        "created (200, 201)": "delivered",
        "exists (412, 409 AlreadyExists), same bytes": "delivered: an earlier attempt took effect",
        "exists, other bytes": "park, with an alarm; never overwritten",
        "401, 403, no credentials": "park",
        "404 on put (no such bucket)": "park",
        "Object Lock refused (no such bucket setting, no permission), or not shown after it was set": "park",
        "409 conflict, 429, 5xx, time-out, connection lost, anything else": "retry",
    }

    def __init__(self, name: str, settings: ObjectStoreSettings) -> None:
        self.name = name
        self.encoder = settings.make_encoder(settings.compression)
        self.effective_guarantee = self.guarantee
        self._store = open_store(settings)
        self._directory = None if settings.url.startswith(_SCHEMES) else Path(settings.url)
        self._threads = ThreadPoolExecutor(self.window, thread_name_prefix=f"store-{name}")
        lock, timeout_s = settings.object_lock, settings.timeout.seconds
        self._lock = None if lock is None else ObjectLock(settings.url, settings.options, lock, self._threads, timeout_s)
        self._named: set[Path] = set()
        self._is_tried = False

    def place(self, cut: Cut) -> str:
        received = msgspec.json.decode(cut.lines[0], type=_Received).received_at
        return f"{cut.tenant}/{received[:4]}/{received[5:7]}/{received[8:10]}/{cut.name}{cut.suffix}"

    async def send(self, cut: Cut) -> Answer:
        try:
            if not self._is_tried:
                await self._try_conditional_put()
            place = self.place(cut)
            if not await self._create(place, cut.body) and await self.find(place, cut.sha256) is not True:
                return Answer(
                    AnswerKind.PARK, reason=f"other bytes lie under the name {place}; nothing was overwritten", where=place
                )
            await self._create(f"{place}.proof", encode_proof(cut))
            if self._lock is not None:
                await self._lock.lock(place)
                await self._lock.lock(f"{place}.proof")
        except LockError as error:
            return Answer(AnswerKind.PARK if error.is_parking else AnswerKind.RETRY, reason=error.message, where=place)
        except (BaseError, OSError) as error:
            return _answer_error(error)
        return Answer(AnswerKind.DELIVERED, where=place)

    async def find(self, place: str, sha256: str) -> bool | None:
        """Raises obstore's errors when the store cannot be asked."""
        if not place:
            return None
        try:
            result = await obstore.get_async(self._store, place)
        except (NotFoundError, FileNotFoundError):
            return False
        digest = hashlib.sha256()
        async for block in result.stream(min_chunk_size=1 << 20):
            digest.update(block)
        return digest.hexdigest() == sha256

    async def read_back(self, place: str, bytes_max: int) -> bytes | None:
        try:
            result = await obstore.get_async(self._store, place)
            data = bytearray()
            async for block in result.stream(min_chunk_size=1 << 20):
                data += block
                if len(data) > bytes_max:
                    break
        except (NotFoundError, FileNotFoundError):
            return None
        except (BaseError, OSError) as error:
            raise DestinationUnavailableError(_answer_error(error).reason) from error
        return bytes(data[:bytes_max])

    async def proof_at(self, place: str, bytes_max: int) -> bytes | None:
        return await self.read_back(f"{place}.proof", bytes_max)

    async def list_places(self, tenant: str, after: str, limit: int) -> list[str]:
        found: list[str] = []
        try:
            async for part in obstore.list(self._store, f"{tenant}/", offset=after or None, chunk_size=1_000):
                found += [path for item in part if not _is_beside(path := str(item["path"]))]
                if len(found) >= limit and not self._directory:
                    break
        except (BaseError, OSError) as error:
            raise DestinationUnavailableError(_answer_error(error).reason) from error
        return sorted(place for place in found if place > after)[:limit]  # a directory is listed in no order

    def first_index_of(self, place: str) -> int | None:
        match = _NAME.fullmatch(place.rpartition("/")[2])
        return int(match[1]) if match else None

    async def probe(self) -> Answer:
        try:
            await self._try_conditional_put()
        except (BaseError, OSError) as error:
            return _answer_error(error)
        return Answer(AnswerKind.DELIVERED)

    async def close(self) -> None:
        self._threads.shutdown(wait=False)

    async def _create(self, place: str, body: bytes) -> bool:
        """False when the name exists. Not multipart: a create-only put must be one request.

        A directory is written by our own hand: obstore does not sync, and what is settled must survive a power cut.
        """
        try:
            if self._directory is not None:
                await asyncio.get_running_loop().run_in_executor(self._threads, self._publish_file, self._directory / place, body)
                return True
            await obstore.put_async(self._store, place, body, mode="create", use_multipart=False)
        except (AlreadyExistsError, PreconditionError, FileExistsError):
            return False
        return True

    def _publish_file(self, path: Path, body: bytes) -> None:
        """Durable when it returns, the names of its directories included: each process syncs those once, whoever made them."""
        make_dir(path.parent)
        for directory in [path.parent, *path.parent.parents]:
            if directory in self._named or directory == self._directory:
                break
            sync_dir(directory.parent)
            self._named.add(directory)
        publish_new(path, body)

    async def _try_conditional_put(self) -> None:
        """Two create-only puts of one key must give created, then exists."""
        key = f".tallystick-probe-{secrets.token_hex(8)}"
        is_created = await self._create(key, b"tallystick probe\n")
        is_honoured = is_created and not await self._create(key, b"tallystick probe\n")
        try:
            await obstore.delete_async(self._store, key)
        except (BaseError, OSError) as error:
            log.warning("a probe object could not be deleted", destination=self.name, key=key, error=str(error))
        if not is_honoured:
            log.error("the store ignores create-only puts: delivery is at least once", destination=self.name)
        self.effective_guarantee = self.guarantee if is_honoured else "at least once"
        self._is_tried = True


def open_store(settings: ObjectStoreSettings) -> Any:
    """obstore's store for the url, its own retries off: retrying is the dispatcher's. Raises ConfigError."""
    timeout = f"{settings.timeout.seconds:g}s"
    options = {"timeout": timeout, "connect_timeout": timeout, **settings.options}
    if options.get("endpoint", "").startswith("http://"):
        options.setdefault("allow_http", "true")
    try:
        if not settings.url.startswith(_SCHEMES):
            make_dir(Path(settings.url))
            return LocalStore(settings.url)
        return open_remote(settings.url, options, retry_s=0.0)
    except (BaseError, ValueError, TypeError, OSError) as error:
        raise ConfigError(f"the object store cannot be used: {error}", hint="docs/destinations/object_store.md") from error


def encode_proof(cut: Cut) -> bytes:
    """The sidecar: enough to show, with the log's public key, which part of the log the object holds."""
    page = {
        "log": cut.origin,
        "first_index": cut.first_index,
        "last_index": cut.last_index,
        "indexes": compact_indexes(cut.indexes),
        "sha256": cut.sha256,
        "batch_root": base64.b64encode(joined_root(event_hashes(cut.lines))).decode(),
        "checkpoint": cut.checkpoint,
    }
    return msgspec.json.encode(page) + b"\n"


def compact_indexes(indexes: Any) -> list[list[int]]:
    """Ascending indexes as ``[first, count]`` runs."""
    if isinstance(indexes, range):
        return [[indexes.start, len(indexes)]]
    runs: list[list[int]] = []
    for index in indexes:
        if runs and runs[-1][0] + runs[-1][1] == index:
            runs[-1][1] += 1
        else:
            runs.append([index, 1])
    return runs


def _is_beside(path: str) -> bool:
    """Proofs; and in a directory, what is not under its name yet (`durable.publish_new`)."""
    return path.endswith(".proof") or path.rpartition("/")[2].startswith(".")


def _answer_error(error: BaseError | OSError) -> Answer:
    text = " ".join(str(error).split())[:1000]
    if isinstance(error, _PARKING):
        return Answer(AnswerKind.PARK, reason=f"{type(error).__name__}: {text}")
    return Answer(AnswerKind.RETRY, reason=f"{type(error).__name__}: {text}")
