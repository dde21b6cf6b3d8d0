"""Puts together what `tallystick verify --data` works on: files, keys when they are there, archive, remembered head.

Nothing is written and no lock is taken: a running server can be verified, and so can a copy on read-only media. The base
install can verify too: without the libraries that open chunks, what lies inside them is reported as not proven.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tallystick.archive.catalog import Catalog
from tallystick.archive.files import ChunkFiles
from tallystick.config import Config, load_config
from tallystick.errors import ConfigError, IntegrityError, KeysMissingError, NotFoundError
from tallystick.evidence.heads import read_remembered
from tallystick.evidence.verify import ChunkSource, Evidence, Report, verify_data
from tallystick.journal.reader import JournalReader
from tallystick.pipeline.role import overrides_from
from tallystick.pipeline.served import read_head
from tallystick.privacy.keys import KeyStore
from tallystick.privacy.seal import from_text
from tallystick.privacy.subjects import SubjectKeys


@dataclass(frozen=True, slots=True)
class VerifyOptions:
    """What the command line said; ``public_key`` is a vkey's text, ``heads`` a file with a signed root head."""

    data: Path
    keys: Path | None = None
    config: Path | None = None
    public_key: str | None = None
    heads: Path | None = None


def verify_directory(options: VerifyOptions, progress: Callable[[str], None]) -> Report:
    """Verify one data directory offline. Raises ConfigError when it is none, or when what was named cannot be read."""
    if not (options.data / "FORMAT").exists():
        raise ConfigError("this is no Tallystick data directory", place=str(options.data), hint="Name the one with the FORMAT file")
    keys = str(options.keys) if options.keys else None
    config = load_config(options.config, overrides_from(str(options.data), keys, None))
    keys_dir = config.keys_dir
    store = _open_keys(keys_dir)
    chunks, closed = _open_chunks(config, store)
    evidence = Evidence(
        config.data_dir,
        public_key=options.public_key or _read(keys_dir / "root.vkey"),
        remembered=read_head(options.heads) if options.heads else read_remembered(keys_dir),
        journal=JournalReader(config.data_dir, store, patience_s=0) if store else None,
        chunks=chunks,
        chunks_closed=closed,
        sealed_keys=_SealedKeys(store) if store else None,
        progress=progress,
    )
    return verify_data(evidence)


class _SealedKeys:
    """Which keys of people and months the key store has."""

    def __init__(self, store: KeyStore) -> None:
        self._store = store
        self._subjects = SubjectKeys(store)

    def has_person(self, skid: str) -> bool:
        try:
            self._subjects.key_of(from_text(skid))
        except (NotFoundError, IntegrityError):
            return False
        return True

    def has_month(self, handle: str, retention_class: str, month: str) -> bool:
        try:
            self._store.epoch_key(handle, retention_class, month)
        except NotFoundError:
            return False
        return True


def _open_keys(path: Path) -> KeyStore | None:
    try:
        return KeyStore.open(path)
    except KeysMissingError:
        return None


def _open_chunks(config: Config, store: KeyStore | None) -> tuple[ChunkSource | None, str]:
    """The archive, and why its chunks cannot be opened (empty when they can)."""
    closed = "their keys are not there"
    is_local = "://" not in config.archive_url
    if is_local and not Path(config.archive_url).is_dir():
        closed = ""  # nothing to open, and opening would make the directory; what the catalog counts on is missing then
    elif store is not None:
        try:
            from tallystick.archive.reader import ChunkSource as OpenedChunks

            return OpenedChunks.open(config, store), ""
        except ModuleNotFoundError as error:
            closed = f"{error.name} is not installed; pip install 'tallystick[server]'"
    if not is_local:
        return None, closed
    return ChunkFiles(Path(config.archive_url), Catalog(config.data_dir / "catalog.sqlite")), closed


def _read(path: Path) -> str | None:
    return path.read_text("utf-8").strip() if path.exists() else None
