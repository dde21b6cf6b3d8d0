"""The api on real parts in one process: a real journal, sealer, query engine and key register behind the real application.

Only the processes are missing: what the inner door would send to the intake process is committed here directly, and the
dispatcher's socket is a function that remembers what it was asked.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import msgspec
from litestar import Litestar

from tallystick.api.app import create_app
from tallystick.api.deps import ApiDeps
from tallystick.api.journal_tail import JournalTail
from tallystick.api.tail import TailHub
from tallystick.archive.erasure import Erasures
from tallystick.archive.quarantine import Quarantine
from tallystick.archive.review import Reviews
from tallystick.config import Config, load_config
from tallystick.delivery.dead_letters import DeadLetters
from tallystick.errors import NotAcceptingError
from tallystick.event import Source
from tallystick.event.codec import EventReader, encode_lines
from tallystick.event.stamp import Stamp
from tallystick.event.times import format_utc
from tallystick.evidence.heads import Heads
from tallystick.evidence.note import vkey
from tallystick.evidence.origin import event_origin
from tallystick.evidence.sealer import Sealer, SealerPlace
from tallystick.http.access import PERMISSIONS, AccessKeys
from tallystick.journal.cursor import Cursor
from tallystick.journal.dedupe import Digester
from tallystick.journal.entries import AccountEntry, Append, TenantBatch
from tallystick.journal.reader import JournalReader
from tallystick.journal.tenants import TenantRegistry
from tallystick.journal.writer import Journal
from tallystick.privacy.keys import KeyStore
from tallystick.privacy.opening import Opener
from tallystick.privacy.subjects import SubjectKeys
from tallystick.query.cursor import SignedTexts
from tallystick.query.engine import QueryEngine
from tallystick.telemetry import publish_status

CONFIGURATION = """
[server]
name = "audit.example.com"
[data]
dir = "data"
quota = "1GiB"
free_min = "1MiB"
reserve = "1MiB"
[journal]
segment_size = "4MiB"
dedupe_events = 1000
[seal]
root_interval = "1s"
[sources.github]
type = "http"
mapping = "github_audit"
tenant = "northwind"
[sources.cloudtrail]
type = "http"
mapping = "aws_cloudtrail"
tenant = "northwind"
[destinations.disk]
type = "file"
path = "out/events.jsonl"
[destinations.hook]
type = "webhook"
url = "https://siem.example.com/audit"
"""


class DirectDoor:
    """An `InnerDoor` that commits in this process. ``is_down`` makes every call fail as a dead intake would."""

    def __init__(self, journal: Journal, tenants: TenantRegistry, config: Config, keys: KeyStore) -> None:
        self._journal = journal
        self._tenants = tenants
        self._reader = EventReader()
        self._config = config
        self._digester = Digester(keys.derive("dedupe"))
        self.is_down = False
        self.replayed: list[tuple[str, str | None, bytes]] = []

    async def append_events(self, tenant: str, events: list[dict[str, Any]], source: str = "tallystick") -> dict[str, Any]:
        self._check()
        batch = self._reader.read(msgspec.json.encode(events), "array")
        assert not batch.errors, batch.errors
        received_at = format_utc(datetime.now(UTC))
        stamp = Stamp(tenant, received_at, Source(name=source, type="http"), None, "standard", self._config.hash)
        found = self._tenants.create(tenant)
        ids = self._digester.ids(found.handle, [item.id for item in batch.events if item.id is not msgspec.UNSET])
        lines = encode_lines(batch.events, stamp)
        digests = ids if len(ids) == len(lines) else [None] * len(lines)
        contents = self._digester.contents(batch.contents) if ids else [None] * len(lines)
        await self._journal.append(Append(batches=[TenantBatch(found, lines, digests, contents)]))
        return {"accepted": len(lines)}

    async def append_entry(self, tenant: str, entry_id: str, entry: dict[str, Any]) -> dict[str, Any]:
        self._check()
        item = AccountEntry(handle=self._tenants.create(tenant).handle, id=entry_id, entry=entry)
        await self._journal.append(Append(account=[item]))
        return {"accepted": 1}

    async def append_records(self, source: str, tenant: str | None, records: list[bytes]) -> dict[str, Any]:
        self._check()
        self.replayed += [(source, tenant, record) for record in records]
        return {"accepted": len(records), "duplicates": 0, "quarantined": []}

    async def create_tenant(self, name: str) -> dict[str, Any]:
        self._check()
        tenant = self._tenants.create(name)
        return {"name": tenant.name, "handle": tenant.handle}

    async def status(self) -> dict[str, Any]:
        self._check()
        return {"ready": True, "reasons": [], "durable": 1, "accepted": {}, "sources": {"events": {"accepted": 3}}}

    async def close(self) -> None:
        return None

    def _check(self) -> None:
        if self.is_down:
            raise NotAcceptingError("the intake process does not answer")


@dataclass
class Rig:
    """One installation. ``asked`` is what the dispatcher was asked; ``answers`` what it says, by operation."""

    config: Config
    keys: KeyStore
    journal: Journal
    deps: ApiDeps
    app: Litestar
    door: DirectDoor
    sealer: Sealer
    admin: str
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    answers: dict[str, Any] = field(default_factory=lambda: {"reconcile": {"next": None}})

    @classmethod
    def open(cls, directory: Path, configuration: str = CONFIGURATION, **options: Any) -> Rig:
        """Make the directories, the keys and an admin key, and open everything."""
        path = directory / "tallystick.toml"
        path.write_text(configuration)
        config = load_config(path)
        keys_dir = config.keys_dir
        keys_dir.mkdir(mode=0o700)
        (config.data_dir / "run" / "metrics").mkdir(parents=True, mode=0o700)
        KeyStore.create(keys_dir)
        keys = KeyStore.open(keys_dir)
        tenants = TenantRegistry(config.data_dir)
        journal = Journal.open(config.data_dir, keys, config.journal, config.data)
        door = DirectDoor(journal, tenants, config, keys)
        for name in ("acme", "globex", "_tallystick"):
            tenants.create(name)
        access = AccessKeys(keys_dir)
        admin = access.create("root", "tests", (), PERMISSIONS)[1]
        sealer = Sealer(
            SealerPlace(config.data_dir, keys_dir, config.server.name, config.hash),
            keys,
            config.seal,
            JournalReader(config.data_dir, keys),
            Cursor(config.data_dir, "sealer"),
        )
        sealer.start()
        engine = QueryEngine(config, keys)
        rig_tenants = TenantRegistry(config.data_dir)
        deps = ApiDeps(
            config=config,
            data_dir=config.data_dir,
            engine=engine,
            access=access,
            tenants=rig_tenants,
            heads=Heads(config.data_dir),
            vkey=lambda origin: vkey(origin, keys.signing_key(origin, create=True).public_key()),
            marks=dict,
            door=door,  # type: ignore[arg-type]
            control=lambda op, **args: rig.control(op, **args),
            tail=TailHub(JournalTail(JournalReader(config.data_dir, keys), rig_tenants)),
            dead_letters=DeadLetters(config.data_dir, keys),
            quarantine=Quarantine(config.data_dir, keys),
            reviews=Reviews(config.data_dir, keys),
            erasures=Erasures(config.data_dir, keys),
            opener=Opener(keys, SubjectKeys(keys), partial(event_origin, config.server.name)),
            walks=SignedTexts(keys.derive("walk")),
        )
        app = options.pop("create", create_app)(deps)
        rig = cls(config, keys, journal, deps, app, door, sealer, admin)
        for role in ("sealer", "archiver", "dispatcher", "producers"):
            publish_status(config.data_dir, role, {"reason": None})
        return rig

    def control(self, op: str, **args: Any) -> Any:
        """The dispatcher's socket."""
        self.asked.append((op, args))
        return self.answers.get(op, {"ok": True})

    async def send(self, tenant: str, events: Iterable[dict[str, Any]]) -> None:
        """Commit events as a sender with a key for ``tenant`` would, and seal them."""
        await self.door.append_events(tenant, list(events), "events")
        self.sealer.seal()

    def key(self, *permissions: str, tenants: Iterable[str] = (), owner: str = "ana") -> str:
        """The secret of a new key."""
        return self.deps.access.create(owner, "test", tuple(tenants), permissions)[1]

    def client(self, key: str | None = "admin", **options: Any) -> httpx.AsyncClient:
        """A client of the application; ``key`` "admin" is the admin's, None sends none."""
        secret = self.admin if key == "admin" else key
        headers = {**({"Authorization": f"Bearer {secret}"} if secret else {}), **options.pop("headers", {})}
        transport = httpx.ASGITransport(self.app)
        return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8420", headers=headers, **options)

    async def close(self) -> None:
        self.sealer.stop()
        await self.journal.close()
        await self.deps.close()


def event(number: int = 1, **members: Any) -> dict[str, Any]:
    """An event with an id, ready to be sent."""
    return {
        "id": f"e{number}",
        "action": "user.login",
        "actor": {"type": "user", "id": f"u_{number}", "name": "Ana"},
        "outcome": "success",
        **members,
    }
