"""Every setting, declared once: name, type, default and one line of documentation.

`load` validates against these classes, `docs/configuration.md` is tested against them, and ``/v1/limits`` lists the
limits among them. The tables under ``[sources.*]``, ``[transforms.*]`` and ``[destinations.*]`` are read by the
plug-in that their ``type`` names, with a settings class of its own in the same style.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta, field

from tallystick.config.alerts import AlarmSettings, AlertSettings
from tallystick.config.backup import BackupSettings
from tallystick.config.base import Settings as Settings
from tallystick.config.privacy import ErasureSettings, PrivacySettings
from tallystick.config.promises import CaseSettings, CatalogSettings, CompletenessSettings
from tallystick.config.reports import ReportSettings
from tallystick.config.retention import RetentionSettings
from tallystick.config.reviews import ReviewSettings
from tallystick.config.units import Duration, Size


class TlsSettings(Settings, frozen=True):
    """`tls = {…}`: the listener speaks TLS 1.2 or newer."""

    cert: Annotated[str, Meta(description="Path of the certificate chain, PEM.")]
    key: Annotated[str, Meta(description="Path of the private key, PEM.")]
    client_ca: Annotated[str | None, Meta(description="Path of the CA that client certificates must come from, PEM.")] = None


class ServerSettings(Settings, frozen=True):
    """`[server]`"""

    name: Annotated[
        str,
        Meta(
            description="First part of every log origin. Fixed at first start; another name is refused.",
            pattern=r"\A[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?(:[0-9]{1,5})?\Z",
        ),
    ] = "tallystick.local"
    listen: Annotated[str, Meta(description="Address and port. Off loopback it needs `tls` or `insecure = true`.")] = (
        "127.0.0.1:8420"
    )
    workers: Annotated[
        int,
        Meta(
            description="Processes that take requests in: read, check, encode, hash and compress. 1: the journal's writer does that itself.",
            ge=1,
            le=64,
        ),
    ] = 1
    insecure: Annotated[bool, Meta(description="Allow plain HTTP off loopback.")] = False
    hosts: Annotated[
        tuple[str, ...],
        Meta(description="Host header values served besides the listen address, localhost and the server's name; others get 421."),
    ] = ()
    tls: Annotated[TlsSettings | None, Meta(description="Certificate and key; absent means plain HTTP.")] = None


class DataSettings(Settings, frozen=True):
    """`[data]`"""

    dir: Annotated[str, Meta(description="Data directory.")] = "data"
    quota: Annotated[Size, Meta(description="Bytes that the data directory may use; past it intake answers 503 `disk_full`.")] = (
        field(default_factory=lambda: Size("200GiB"))
    )
    free_min: Annotated[
        Size, Meta(description="Free bytes to leave on the file system; below it intake answers 503 `disk_full`.")
    ] = field(default_factory=lambda: Size("256MiB"))
    reserve: Annotated[Size, Meta(description="Reserve file, freed when the disk is full so that state can still be written.")] = (
        field(default_factory=lambda: Size("64MiB"))
    )


class KeysSettings(Settings, frozen=True):
    """`[keys]`"""

    dir: Annotated[
        str | None, Meta(description="Key directory; default is the data directory's path + `.keys`. Never inside it.")
    ] = None
    provider: Annotated[Literal["local"], Meta(description="Who keeps the root key.")] = "local"


class JournalSettings(Settings, frozen=True):
    """`[journal]`"""

    segment_size: Annotated[Size, Meta(description="Size of one journal file.")] = field(default_factory=lambda: Size("256MiB"))
    queue: Annotated[Size, Meta(description="Bytes that may wait for a commit; past it the answer is 503 `overloaded`.")] = field(
        default_factory=lambda: Size("64MiB")
    )
    dedupe_events: Annotated[int, Meta(description="How many of the last event ids are remembered, at least.", ge=1)] = 20_000_000
    read_patience: Annotated[
        Duration,
        Meta(description="How long a range that gives read errors is tried again, with status red, before it counts as damaged."),
    ] = field(default_factory=lambda: Duration("1m"))


class SealSettings(Settings, frozen=True):
    """`[seal]`"""

    interval: Annotated[Duration, Meta(description="Time between two rounds of sealing.")] = field(
        default_factory=lambda: Duration("250ms")
    )
    root_interval: Annotated[Duration, Meta(description="At most one root checkpoint in this time.")] = field(
        default_factory=lambda: Duration("10s")
    )
    heartbeat: Annotated[Duration, Meta(description="The root log gets a heartbeat after this time, also without news.")] = field(
        default_factory=lambda: Duration("1m")
    )
    include_by: Annotated[
        Duration,
        Meta(description="Promise in signed receipts: past this time an event that is not in its tree is proof of misbehaviour."),
    ] = field(default_factory=lambda: Duration("1h"))


class ArchiveSettings(Settings, frozen=True):
    """`[archive]`"""

    store: Annotated[str | None, Meta(description="A directory or s3://, gs://, az:// URL; default `<data dir>/archive`.")] = None
    max_age: Annotated[Duration, Meta(description="Events are archived at the latest after this time.")] = field(
        default_factory=lambda: Duration("1h")
    )
    hot_bytes: Annotated[Size, Meta(description="Bytes of lines that may wait outside the archive, over all tenants.")] = field(
        default_factory=lambda: Size("256MiB")
    )
    chunk_size: Annotated[Size, Meta(description="Bytes of one tenant's lines that are archived without waiting longer.")] = field(
        default_factory=lambda: Size("32MiB")
    )
    merge_below: Annotated[Size, Meta(description="Chunks smaller than this are merged with their neighbours.")] = field(
        default_factory=lambda: Size("4MiB")
    )
    merge_grace: Annotated[
        Duration, Meta(description="How long merged chunks stay, so that running searches can finish. Longer than `query.time`.")
    ] = field(default_factory=lambda: Duration("10m"))
    options: Annotated[
        dict[str, str], Meta(description="Options of the object store, as obstore names them (endpoint, region …).")
    ] = field(default_factory=dict)


class PipelineSettings(Settings, frozen=True):
    """`[pipeline]`"""

    transforms: Annotated[
        tuple[str, ...], Meta(description="Transforms that run first, for every source. The built-in `secrets` redacts secrets.")
    ] = ("secrets",)


class IngestLimits(Settings, frozen=True):
    """`[limits]`"""

    body: Annotated[Size, Meta(description="One request body as sent.")] = field(default_factory=lambda: Size("16MiB"))
    decompressed: Annotated[Size, Meta(description="One request body after decompression.")] = field(
        default_factory=lambda: Size("64MiB")
    )
    ratio: Annotated[int, Meta(description="Decompressed bytes per compressed byte, past the first MiB.", ge=1)] = 200
    events: Annotated[int, Meta(description="Events in one request.", ge=1)] = 100_000
    event: Annotated[Size, Meta(description="One canonical line; up to 1 MiB.")] = field(default_factory=lambda: Size("65535B"))
    depth: Annotated[int, Meta(description="Depth of nesting in one event.", ge=2, le=128)] = 32
    head: Annotated[Size, Meta(description="Request line and headers of one request.")] = field(
        default_factory=lambda: Size("32KiB")
    )
    headers: Annotated[int, Meta(description="Number of headers in one request.", ge=8)] = 100
    head_time: Annotated[Duration, Meta(description="Time in which the request head must arrive.")] = field(
        default_factory=lambda: Duration("10s")
    )
    body_time: Annotated[Duration, Meta(description="Time in which the request body must arrive.")] = field(
        default_factory=lambda: Duration("60s")
    )
    idle_time: Annotated[Duration, Meta(description="Time a connection may idle between requests.")] = field(
        default_factory=lambda: Duration("60s")
    )
    connections: Annotated[int, Meta(description="Open connections in all.", ge=1)] = 2_048
    connections_per_address: Annotated[int, Meta(description="Open connections from one address.", ge=1)] = 1_024
    bodies_in_flight: Annotated[
        Size,
        Meta(
            description="Bytes of all request bodies that are being received or worked on; past it the answer is 503 `overloaded`. "
            "One key may hold as much as is left over by all."
        ),
    ] = field(default_factory=lambda: Size("256MiB"))
    key_events_per_second: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="Events that one key may send; past it the answer is 429. Absent: no quota."),
    ] = None
    key_bytes_per_second: Annotated[
        Size | None, Meta(description="Bytes of bodies, decompressed, that one key may send in a second. Absent: no quota.")
    ] = None
    tenant_events_per_second: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="Events that are taken for one tenant, whoever sends them. Absent: no quota."),
    ] = None
    tenant_bytes_per_second: Annotated[
        Size | None, Meta(description="Bytes of events that are taken for one tenant in a second. Absent: no quota.")
    ] = None
    quota_burst: Annotated[
        Duration, Meta(description="A quota that was not used is kept for this long: so much may come at once.")
    ] = field(default_factory=lambda: Duration("10s"))
    failed_logins: Annotated[
        int, Meta(description="Failed logins in a minute from one address, and for one key id; past it they get 429.", ge=1)
    ] = 100

    def __post_init__(self) -> None:
        if not 1_024 <= self.event.bytes <= 2**20:
            raise ValueError(f"event = {self.event.text!r} is not between 1KiB and 1MiB")
        for name in ("key_bytes_per_second", "tenant_bytes_per_second"):
            _check_rate(name, getattr(self, name))
        if self.quota_burst.seconds < 1:
            raise ValueError(f"quota_burst = {self.quota_burst.text!r} is shorter than a second")
        if self.bodies_in_flight.bytes < self.body.bytes + self.decompressed.bytes:
            raise ValueError(f"bodies_in_flight = {self.bodies_in_flight.text!r} is less than body and decompressed together")


class TenantSettings(Settings, frozen=True):
    """`[tenants.NAME]`: what holds for this tenant in place of what holds for all."""

    events_per_second: Annotated[
        Annotated[int, Meta(ge=1)] | None, Meta(description="Instead of `[limits] tenant_events_per_second`.")
    ] = None
    bytes_per_second: Annotated[Size | None, Meta(description="Instead of `[limits] tenant_bytes_per_second`.")] = None
    retention: Annotated[
        dict[str, Duration],
        Meta(description='Periods of this tenant by class, in place of those of the classes: `{ standard = "3650d" }`.'),
    ] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_rate("bytes_per_second", self.bytes_per_second)


def _check_rate(name: str, rate: Size | None) -> None:
    if rate is not None and rate.bytes < 1:
        raise ValueError(f"{name} = {rate.text!r} would let nothing through")


class QuerySettings(Settings, frozen=True):
    """`[query]`"""

    time: Annotated[Duration, Meta(description="Longest time for one search; past it the answer is partial and says so.")] = field(
        default_factory=lambda: Duration("30s")
    )
    limit: Annotated[int, Meta(description="Most events in one page.", ge=1)] = 1_000
    query: Annotated[Size, Meta(description="Longest query text.")] = field(default_factory=lambda: Size("8KiB"))
    memory: Annotated[Size, Meta(description="Memory that one query may use.")] = field(default_factory=lambda: Size("512MiB"))


class LogSettings(Settings, frozen=True):
    """`[log]`"""

    public: Annotated[bool, Meta(description="Serve checkpoints and hash tiles without a key. Entries always need one.")] = False
    read_record_interval: Annotated[
        Duration, Meta(description="How long one `tallystick.log.read` record stands for its reader's further reads of that log.")
    ] = field(default_factory=lambda: Duration("1m"))


class ConsoleSettings(Settings, frozen=True):
    """`[console]`"""

    notice: Annotated[
        str,
        Meta(
            description="A line of text above the list of events, for everyone who signs in; each can dismiss it.", max_length=500
        ),
    ] = ""


class BatchSettings(Settings, frozen=True):
    """`batch = {…}` of a destination: a cut is made when one of the three is reached. A key left out keeps that destination's default."""

    max_events: Annotated[Annotated[int, Meta(ge=1)] | None, Meta(description="Events in one cut.")] = None
    max_bytes: Annotated[
        Size | None, Meta(description="Bytes of canonical lines in one cut; a larger single event is a cut alone.")
    ] = None
    max_age: Annotated[Duration | None, Meta(description="Longest time that a sealed event waits for company.")] = None


class DestinationSettings(Settings, frozen=True):
    """`[destinations.*]`: what every destination understands, besides `type` and its own keys."""

    where: Annotated[str | None, Meta(description="Query; other events are counted as filtered by `where`.")] = None
    batch: Annotated[BatchSettings, Meta(description="Borders of a cut.")] = field(default_factory=BatchSettings)

    def check(self) -> None:
        """What types alone cannot say of a value; opens no connection and makes no file. Raises ConfigError."""


class DeliverySettings(Settings, frozen=True):
    """`[delivery]`"""

    retry_min: Annotated[Duration, Meta(description="Wait after the first failed attempt; it doubles with each further one.")] = (
        field(default_factory=lambda: Duration("500ms"))
    )
    retry_max: Annotated[Duration, Meta(description="Longest wait between two attempts. Attempts never end.")] = field(
        default_factory=lambda: Duration("30s")
    )
    breaker_failures: Annotated[
        int, Meta(description="Failures in a row after which only one attempt at a time probes a destination.", ge=1)
    ] = 5
    probe_interval: Annotated[Duration, Meta(description="Time between two probes of a parked destination.")] = field(
        default_factory=lambda: Duration("1m")
    )
    statement_interval: Annotated[Duration, Meta(description="Time between two signed statements.")] = field(
        default_factory=lambda: Duration("1h")
    )
    cache: Annotated[Size, Meta(description="Journal bytes that the dispatcher keeps in memory for all destinations.")] = field(
        default_factory=lambda: Size("64MiB")
    )
    poll_interval: Annotated[Duration, Meta(description="Time between two looks for newly sealed events.")] = field(
        default_factory=lambda: Duration("50ms")
    )


class Config(Settings, frozen=True):
    """The whole file. `path` and `hash` say which file, and the SHA-256 of its bytes, in hexadecimal."""

    server: ServerSettings = field(default_factory=ServerSettings)
    data: DataSettings = field(default_factory=DataSettings)
    keys: KeysSettings = field(default_factory=KeysSettings)
    journal: JournalSettings = field(default_factory=JournalSettings)
    limits: IngestLimits = field(default_factory=IngestLimits)
    seal: SealSettings = field(default_factory=SealSettings)
    archive: ArchiveSettings = field(default_factory=ArchiveSettings)
    retention: RetentionSettings = field(default_factory=RetentionSettings)
    completeness: CompletenessSettings = field(default_factory=CompletenessSettings)
    query: QuerySettings = field(default_factory=QuerySettings)
    log: LogSettings = field(default_factory=LogSettings)
    console: ConsoleSettings = field(default_factory=ConsoleSettings)
    pipeline: PipelineSettings = field(default_factory=PipelineSettings)
    delivery: DeliverySettings = field(default_factory=DeliverySettings)
    catalog: CatalogSettings = field(default_factory=CatalogSettings)
    alerts: AlertSettings = field(default_factory=AlertSettings)
    alarms: AlarmSettings = field(default_factory=AlarmSettings)
    reports: ReportSettings = field(default_factory=ReportSettings)
    backup: BackupSettings = field(default_factory=BackupSettings)
    tenants: dict[str, TenantSettings] = field(default_factory=dict)
    sources: dict[str, dict[str, Any]] = field(default_factory=dict)
    transforms: dict[str, dict[str, Any]] = field(default_factory=dict)
    destinations: dict[str, dict[str, Any]] = field(default_factory=dict)
    reviews: dict[str, ReviewSettings] = field(default_factory=dict)
    privacy: dict[str, PrivacySettings] = field(default_factory=dict)
    erasure: ErasureSettings = field(default_factory=ErasureSettings)
    tests: tuple[CaseSettings, ...] = ()
    path: str = ""
    hash: str = ""

    @property
    def base_dir(self) -> Path:
        """Relative paths in the file start here: the file's own directory, or the working directory without a file."""
        return Path(self.path).resolve().parent if self.path else Path.cwd()

    @property
    def data_dir(self) -> Path:
        return self.base_dir / self.data.dir

    @property
    def keys_dir(self) -> Path:
        if self.keys.dir is not None:
            return self.base_dir / self.keys.dir
        return self.data_dir.with_name(self.data_dir.name + ".keys")

    @property
    def archive_url(self) -> str:
        """A URL with a scheme, or an absolute directory."""
        store = self.archive.store
        if store is None:
            return str(self.data_dir / "archive")
        return store if "://" in store else str(self.base_dir / store)

    @property
    def backup_url(self) -> str | None:
        """Where backups go: a URL with a scheme, or an absolute directory; None when none are made."""
        store = self.backup.store
        return store if store is None or "://" in store else str(self.base_dir / store)

    @property
    def backup_keys_url(self) -> str | None:
        """Where key backups go; never below `backup_url`."""
        store = self.backup.keys_store
        if store is None:
            return None if self.backup_url is None else self.backup_url.rstrip("/") + ".keys"
        return store if "://" in store else str(self.base_dir / store)
