"""The intake on real parts: a journal, tenants, keys and plans in a directory of their own; only the sockets are missing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tallystick.config import Config, load_config
from tallystick.event.codec import EventReader, Limits
from tallystick.evidence.note import vkey
from tallystick.evidence.receipt import receipt_key_name
from tallystick.http.access import AccessKeys
from tallystick.http.host import HostCheck
from tallystick.http.limits import BodyReader
from tallystick.http.logins import LoginGuard
from tallystick.http.proxy import UnixProxy
from tallystick.journal.dedupe import Digester
from tallystick.journal.frame import Frame, FrameType
from tallystick.journal.reader import JournalReader
from tallystick.journal.tenants import TenantRegistry
from tallystick.journal.writer import Journal
from tallystick.privacy.keys import KeyStore
from tallystick.query.evaluate import compile_query
from tallystick.sources.answer import ReceiptSigner
from tallystick.sources.doors import DoorParts
from tallystick.sources.front import Front
from tallystick.sources.inner_door import InnerDoor
from tallystick.sources.intake import IntakeService
from tallystick.sources.plan import build_plans
from tallystick.sources.routes import build_routes
from tallystick.sources.submission import Draft, Sender
from tallystick.sources.tally import SourceTallies

SERVER = "audit.example.com"
CONFIGURATION = """
[server]
name = "audit.example.com"
[data]
quota = "1GiB"
free_min = "1MiB"
reserve = "64KiB"
[journal]
segment_size = "1MiB"
dedupe_events = 1000
[pipeline]
transforms = ["secrets"]
[transforms.noise]
type = "filter"
drop = "action:health.check"
[transforms.debris]
type = "filter"
drop = "action:debug.*"
[sources.github]
type = "http"
mapping = "github_audit"
tenant = "northwind"
transforms = ["noise"]
[sources.open]
type = "http"
"""
ANYONE = Sender("k1", ())


@dataclass(frozen=True)
class Answer:
    """What an ASGI application sent."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return msgspec.json.decode(self.body)


@dataclass
class Rig:
    """One intake process without its sockets."""

    config: Config
    keys: KeyStore
    access: AccessKeys
    service: IntakeService
    front: Front
    inner: InnerDoor
    logins: LoginGuard
    parts: DoorParts
    vkey: str
    secret: str

    def secret_for(self, *tenants: str, permissions: Iterable[str] = ("ingest",)) -> str:
        """A new key's secret."""
        return self.access.create("tests", "tests", tenants, tuple(permissions), None)[1]

    async def call(
        self,
        path: str = "/v1/events",
        body: bytes = b"",
        *,
        app: Any = None,
        method: str = "POST",
        media: str | None = "application/x-ndjson",
        secret: str | None = None,
        headers: Iterable[tuple[str, str]] = (),
        authorization: bool = True,
    ) -> Answer:
        """One request through the front (or ``app``), query string included in ``path``."""
        path, _, query = path.partition("?")
        lines = [("host", "127.0.0.1:8420"), *headers]
        if authorization:
            lines.append(("authorization", f"Bearer {secret or self.secret}"))
        if media is not None:
            lines.append(("content-type", media))
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in lines],
            "client": ("192.0.2.7", 5000),
            "scheme": "http",
        }
        sent: list[Any] = []
        waiting = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Any:
            return waiting.pop() if waiting else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        await (app or self.front)(scope, receive, send)
        found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return Answer(sent[0]["status"], found, b"".join(part.get("body", b"") for part in sent[1:]))

    async def accept(self, path: str = "/v1/events", body: bytes = b"", **options: Any) -> Any:
        """One request that must be accepted; its answer."""
        answer = await self.call(path, body, **options)
        assert answer.status == 200, answer.body
        return answer.json()

    def draft(self, source: str = "events", sender: Sender = ANYONE, **options: Any) -> Draft:
        return self.service.draft(self.service.plan(source), sender, **options)

    def frames(self, kind: FrameType) -> list[Frame]:
        """Everything durable of one kind."""
        reader = JournalReader(self.config.data_dir, self.keys)
        position, found = reader.oldest(), []
        while True:
            items, following = reader.read(position)
            found += [item for item in items if isinstance(item, Frame) and item.type == kind]
            if following == position:
                reader.close()
                return found
            position = following

    def events(self, tenant: str = "default") -> list[dict[str, Any]]:
        """A tenant's durable events, in order."""
        known = self.service.tenants.get(tenant)
        assert known is not None, tenant
        return [
            msgspec.json.decode(line)
            for frame in self.frames(FrameType.EVENTS)
            if frame.handle == known.handle
            for line in frame.lines()
        ]

    def records(self, kind: FrameType) -> list[dict[str, Any]]:
        """Durable records of another kind, with the tenant's name for the handle."""
        found = [msgspec.json.decode(record) for frame in self.frames(kind) for record in frame.records()]
        return [{**record, "tenant": self.tenant_of(record["handle"])} for record in found]

    def tenant_of(self, handle: str) -> str:
        known = self.service.tenants.by_handle(handle)
        assert known is not None
        return known.name


def event(**members: Any) -> dict[str, Any]:
    return {"action": "user.login", "actor": "u_1", **members}


def ndjson(*events: dict[str, Any]) -> bytes:
    return msgspec.json.Encoder().encode_lines(events)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    path = tmp_path / "tallystick.toml"
    path.write_text(CONFIGURATION)
    config = load_config(path)
    config.data_dir.mkdir()
    keys = KeyStore.create(config.keys_dir)
    name = receipt_key_name(SERVER)
    key = keys.signing_key(name, create=True)
    journal = Journal.open(config.data_dir, keys, config.journal, config.data)
    plans = build_plans(config, compile_query)
    service = IntakeService(
        journal,
        TenantRegistry(config.data_dir),
        plans,
        EventReader(Limits(events=50)),
        Digester(keys.derive("dedupe")),
        config.hash,
        SourceTallies((plan.name, plan.type) for plan in plans.values()),
    )
    access = AccessKeys(config.keys_dir)
    secret = access.create("tests", "tests", (), ("ingest",), None)[1]
    bodies, signer = BodyReader(config.limits), ReceiptSigner(SERVER, key, 3600.0)
    logins = LoginGuard(5, "intake", service.record)

    def not_ready() -> list[str]:
        return [] if journal.status()["accepting"] else ["stopped"]

    parts = DoorParts(service, access, bodies, signer, logins, keys.derive, not_ready)
    front = Front(
        build_routes(parts, plans),
        UnixProxy(tmp_path / "nobody.sock"),
        HostCheck(config.server),
    )
    inner = InnerDoor(service, lambda: {"ready": True})
    yield Rig(config, keys, access, service, front, inner, logins, parts, vkey(name, key.public_key()), secret)
    await logins.close()
    await journal.close()
