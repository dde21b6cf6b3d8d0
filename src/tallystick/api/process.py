"""The api's process: everything that reads, and management, on ``run/api.sock`` behind the intake's listener (decision 0002)."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from functools import partial

import uvicorn
import uvloop
from litestar import Litestar

from tallystick.api.deps import ApiDeps
from tallystick.api.door import InnerDoor
from tallystick.api.journal_tail import JournalTail
from tallystick.api.tail import TailHub
from tallystick.api.watch import AlarmWatch
from tallystick.archive.catalog import Catalog
from tallystick.archive.erasure import Erasures
from tallystick.archive.quarantine import Quarantine
from tallystick.archive.review import Reviews
from tallystick.delivery import control
from tallystick.delivery.dead_letters import DeadLetters
from tallystick.evidence.heads import Heads
from tallystick.evidence.note import vkey
from tallystick.evidence.origin import event_origin
from tallystick.http.access import AccessKeys
from tallystick.journal.reader import JournalReader
from tallystick.journal.tenants import TenantRegistry
from tallystick.pipeline.context import Installation
from tallystick.pipeline.process import bind_unix
from tallystick.privacy.opening import Opener
from tallystick.privacy.subjects import SubjectKeys
from tallystick.query.cursor import SignedTexts
from tallystick.query.engine import QueryEngine
from tallystick.telemetry import log

_GRACE_S = 5


def serve(installation: Installation, create: Callable[[ApiDeps], Litestar]) -> None:
    """Serve the application that ``create`` makes until told to stop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(installation, create))


async def _serve(installation: Installation, create: Callable[[ApiDeps], Litestar]) -> None:
    deps = build_deps(installation)
    app = create(deps)
    config = uvicorn.Config(
        app,
        http="httptools",
        loop="uvloop",
        lifespan="on",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_GRACE_S,
    )
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    watch = asyncio.create_task(AlarmWatch(deps).run())
    watch.add_done_callback(_tell_end)
    try:
        await uvicorn.Server(config).serve([bind_unix(installation.run_dir / "api.sock")])
    finally:
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)


def _tell_end(watch: asyncio.Task[None]) -> None:
    """A watcher that ended by itself watches no more: that stands in the log, and its page grows old."""
    if not watch.cancelled() and (error := watch.exception()) is not None:
        log.error("the watcher of the pipeline ended", error=repr(error))


def build_deps(installation: Installation) -> ApiDeps:
    """The parts of this process."""
    config, data_dir, keys = installation.config, installation.data_dir, installation.keys
    tenants = TenantRegistry(data_dir)
    return ApiDeps(
        config=config,
        data_dir=data_dir,
        engine=QueryEngine(config, keys),
        access=AccessKeys(installation.keys_dir),
        tenants=tenants,
        heads=Heads(data_dir),
        vkey=lambda name: vkey(name, keys.signing_key(name).public_key()) if keys.has_signing_key(name) else "",
        marks=Catalog(data_dir / "catalog.sqlite").marks,
        door=InnerDoor(data_dir),
        control=partial(control.call, data_dir),
        tail=TailHub(JournalTail(JournalReader(data_dir, keys, patience_s=0), tenants)),
        dead_letters=DeadLetters(data_dir, keys),
        quarantine=Quarantine(data_dir, keys),
        reviews=Reviews(data_dir, keys),
        erasures=Erasures(data_dir, keys),
        opener=Opener(keys, SubjectKeys(keys), partial(event_origin, installation.server_name)),
        walks=SignedTexts(keys.derive("walk")),
    )
