"""What the api is built on, by the form it needs: the composition root fills these in, tests put fakes there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from litestar.di import NamedDependency

from tallystick.api.audit import Auditor
from tallystick.api.caller import Caller
from tallystick.api.door import InnerDoor
from tallystick.api.log_reads import LogReads
from tallystick.api.tail import TailHub
from tallystick.api.work import BoundedPool
from tallystick.archive.catalog import Catalog
from tallystick.archive.erasure import Erasures
from tallystick.archive.quarantine import Quarantine
from tallystick.archive.review import Reviews
from tallystick.config import Config
from tallystick.delivery.dead_letters import DeadLetters
from tallystick.evidence.heads import Heads
from tallystick.http.access import AccessKeys
from tallystick.http.logins import LoginGuard
from tallystick.journal.tenants import SERVER_TENANT, TenantRegistry
from tallystick.privacy.opening import Opener
from tallystick.query.cursor import SignedTexts
from tallystick.query.engine import QueryEngine


class Control(Protocol):
    """`delivery.control.call` bound to the data directory: the dispatcher's answers to pause, resume, probe, replay, explain."""

    def __call__(self, op: str, **args: Any) -> Any: ...


@dataclass(slots=True)
class ApiDeps:
    """All parts of one api process. ``vkey`` gives the public key of an origin
    or key name as text, empty before the sealer made it; ``marks`` the archived size by handle; ``walks`` signs where a walk stands."""

    config: Config
    data_dir: Path
    engine: QueryEngine
    access: AccessKeys
    tenants: TenantRegistry
    heads: Heads
    vkey: Callable[[str], str]
    marks: Callable[[], Mapping[str, int]]
    door: InnerDoor
    control: Control
    tail: TailHub
    dead_letters: DeadLetters
    quarantine: Quarantine
    reviews: Reviews
    opener: Opener
    erasures: Erasures
    walks: SignedTexts
    searches: BoundedPool = field(default_factory=lambda: BoundedPool("search", threads=2, queue=8))
    reads: BoundedPool = field(default_factory=lambda: BoundedPool("read", threads=4, queue=64))
    exports: BoundedPool = field(default_factory=lambda: BoundedPool("export", threads=2, queue=16))
    open_exports: int = 0
    catalog: Catalog = field(init=False)
    auditor: Auditor = field(init=False)
    log_reads: LogReads = field(init=False)
    logins: LoginGuard = field(init=False)

    def __post_init__(self) -> None:
        self.catalog = Catalog(self.data_dir / "catalog.sqlite")
        self.auditor = Auditor(self.door)
        self.log_reads = LogReads(self.auditor, self.config.log.read_record_interval.seconds)
        self.logins = LoginGuard(
            self.config.limits.failed_logins, "api", lambda event: self.door.append_events(SERVER_TENANT, [event])
        )

    @property
    def server_name(self) -> str:
        return self.config.server.name

    def is_active(self, caller: Caller) -> bool:
        """The caller's key still stands: neither revoked nor expired."""
        return self.access.live(caller.key_id) is not None

    async def close(self) -> None:
        """Release what this process holds open."""
        await self.logins.close()
        await self.door.close()
        for pool in (self.searches, self.reads, self.exports):
            pool.close()
        self.engine.close()
        self.reviews.close()
        self.catalog.close()


DepsDep = NamedDependency[ApiDeps]
CallerDep = NamedDependency[Caller]
