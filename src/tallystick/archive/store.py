"""Where chunks and manifests lie: a local directory, or a bucket (s3://, gs://, az://), through obstore.

Objects are written once and never changed: `put_new` creates or refuses. When it returns the object is durable, so a
catalog row may name it. A bucket acknowledges only what it keeps; obstore's local store does not sync, so in a local
directory files are created through `durable`; all else is the same code for every store.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.exceptions import NotFoundError as MissingError
from obstore.store import LocalStore, from_url

from tallystick.config import Config
from tallystick.durable import make_dir, unlink, write_new
from tallystick.errors import ConfigError, DestinationUnavailableError, IntegrityError, NotFoundError

_CLIENT_OPTIONS = frozenset(
    [
        "allow_http",
        "allow_invalid_certificates",
        "connect_timeout",
        "http1_only",
        "http2_only",
        "pool_idle_timeout",
        "pool_max_idle_per_host",
        "proxy_url",
        "proxy_ca_certificate",
        "proxy_excludes",
        "read_timeout",
        "root_certificate",
        "timeout",
        "user_agent",
    ]
)


class ArchiveStore:
    """Thread-safe. Every method raises DestinationUnavailableError while the store cannot be reached."""

    def __init__(self, url: str, options: dict[str, str] | None = None, *, retry_s: float = 30.0, what: str = "archive") -> None:
        """``retry_s``: how long one call tries again by itself before it raises, in seconds. ``what``: the table of the configuration."""
        self.url = url
        self._what = what
        self._root: Path | None = None
        if "://" not in url or url.startswith("file://"):
            self._root = Path(url.removeprefix("file://"))
            make_dir(self._root)
            self._store: Any = LocalStore(self._root)
            return
        try:
            self._store = open_remote(url, options or {}, retry_s)
        except (BaseError, ValueError, TypeError) as error:
            raise ConfigError(
                f"the {what} store cannot be opened: {error}",
                place=f"[{what}] store = {url!r}",
                hint="Options are named as obstore names them (region, endpoint, access_key_id …)",
            ) from error

    @classmethod
    def open(cls, config: Config) -> ArchiveStore:
        """The store that the configuration names. Raises ConfigError."""
        return cls(config.archive_url, config.archive.options)

    def put_new(self, path: str, data: bytes) -> None:
        """Create an object, durably. One with the same bytes may be there already (a lost answer of an earlier try).

        Raises IntegrityError when another object has that name: nothing is ever overwritten.
        """
        with self._translating(path):
            try:
                self._create(path, data)
            except (AlreadyExistsError, FileExistsError) as error:
                if bytes(obstore.get(self._store, path).bytes()) != data:
                    raise IntegrityError("another object has this name already", place=self.place(path)) from error

    def get(self, path: str) -> bytes:
        """The object's bytes. Raises NotFoundError."""
        with self._translating(path):
            return bytes(obstore.get(self._store, path).bytes())

    def size(self, path: str) -> int | None:
        """The object's size in bytes, or None when it is not there."""
        try:
            with self._translating(path):
                return int(obstore.head(self._store, path)["size"])
        except NotFoundError:
            return None

    def list(self, prefix: str = "") -> Iterator[str]:
        """The paths of all objects under a prefix that ends at a slash; in no order."""
        yield from (path for path, _ in self.sizes(prefix))

    def sizes(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """As `list`, with the bytes of each object."""
        with self._translating(prefix):
            for page in obstore.list(self._store, prefix.rstrip("/") or None):
                yield from ((entry["path"], int(entry["size"])) for entry in page)

    def delete(self, path: str) -> None:
        """Remove an object; harmless when it is gone. The catalog must no longer count on it."""
        with self._translating(path):
            if self._root is not None:
                if (self._root / path).exists():
                    unlink(self._root / path)
                return
            try:
                obstore.delete(self._store, path)
            except (MissingError, FileNotFoundError):
                return

    def local_path(self, path: str) -> Path | None:
        """Where the object lies in a local store, else None."""
        return self._root / path if self._root is not None else None

    def place(self, path: str) -> str:
        """How a message names an object."""
        return f"{self.url.rstrip('/')}/{path}"

    def _create(self, path: str, data: bytes) -> None:
        if self._root is None:
            obstore.put(self._store, path, data, mode="create", use_multipart=False)
            return
        target = self._root / path
        make_dir(target.parent)
        # A crash inside leaves a partial file, or a whole one that no catalog row names: whoever puts records its names
        # first and deletes them at the next start (`ChunkWriter.settle`).
        write_new(target, data)

    @contextmanager
    def _translating(self, path: str) -> Iterator[None]:
        """obstore's errors as ours. All but "not there" may pass by themselves, a wrong credential included: it is rotated."""
        try:
            yield
        except (MissingError, FileNotFoundError) as error:
            raise NotFoundError(f"no such object in the {self._what}", place=self.place(path)) from error
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise DestinationUnavailableError(
                f"the {self._what} store refuses us: {error}",
                place=self.place(path),
                hint=f"Check [{self._what}] options and the bucket's policy",
            ) from error
        except (BaseError, OSError) as error:
            raise DestinationUnavailableError(f"the {self._what} store failed: {error}", place=self.place(path)) from error


def open_remote(url: str, options: dict[str, str], retry_s: float) -> Any:
    """obstore's store of a URL. ``options`` holds the store's and the client's, by obstore's names. Raises its errors."""
    client: Any = {name: _flag(value) for name, value in options.items() if name in _CLIENT_OPTIONS}
    config: Any = {name: value for name, value in options.items() if name not in _CLIENT_OPTIONS}
    retry: Any = {"retry_timeout": timedelta(seconds=retry_s), "max_retries": 10 if retry_s else 0}
    return from_url(url, config=config, client_options=client or None, retry_config=retry)


def _flag(value: str) -> str | bool:
    return value == "true" if value in ("true", "false") else value
