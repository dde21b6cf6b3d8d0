"""Source `pull`: asks a vendor's API for audit records, for ever."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

from msgspec import Meta, field
from prometheus_client import Counter, Gauge

from tallystick.config import Duration, Size
from tallystick.delivery.retry import backoff_s
from tallystick.errors import ConfigError, NotAcceptingError, TallystickError
from tallystick.http.outbound import OutboundClient, check_url, trust_context
from tallystick.plugin import Intake, SourceContext
from tallystick.sources.kind import MappedSettings
from tallystick.sources.pull.auth import AuthSettings, Credential
from tallystick.sources.pull.caller import Caller, RefusedError, StoppedError
from tallystick.sources.pull.definition import Definition, fill, load_definition
from tallystick.sources.pull.stream import Places, Stream
from tallystick.telemetry import log

BACKOFF_MIN_S = 1.0
BACKOFF_MAX_S = 300.0
_FAILURES = Counter("tallystick_pull_failures", "Polls of an API that failed and are tried again.", ["source"])
_LAG = Gauge(
    "tallystick_pull_lag_seconds",
    "Time since every stream of the source was read to its end.",
    ["source"],
    multiprocess_mode="livemax",
)


class PullSettings(MappedSettings, frozen=True, kw_only=True):
    """Which API, and with whose credential."""

    definition: Annotated[str, Meta(description="A ready definition's name, or the path of your own (`.toml`).")]
    mapping: Annotated[str, Meta(description="Mapping that turns records into events; `definition`: the one that it names.")] = (
        "definition"
    )
    auth: Annotated[AuthSettings, Meta(description="The credential.")] = field(default_factory=AuthSettings)
    parameters: Annotated[dict[str, str], Meta(description="What the definition asks for: an organisation, a domain.")] = field(
        default_factory=dict
    )
    each: Annotated[
        tuple[str, ...], Meta(description="Values of the definition's `each`: one stream for each (applications, content types).")
    ] = ()
    base: Annotated[str | None, Meta(description="Another server than the definition's, as for self-hosted products.")] = None
    interval: Annotated[Duration | None, Meta(description="Time between two polls; absent: as the definition says.")] = None
    start: Annotated[Duration, Meta(description="How far back the first poll looks.")] = field(
        default_factory=lambda: Duration("24h")
    )
    timeout: Annotated[Duration, Meta(description="Longest time for one request.")] = field(default_factory=lambda: Duration("60s"))
    page_max: Annotated[Size, Meta(description="Longest reply.")] = field(default_factory=lambda: Size("32MiB"))
    allow_private: Annotated[bool, Meta(description="Allow addresses that are not public, and plain http to them.")] = False
    ca: Annotated[str | None, Meta(description="Path of a CA certificate to trust instead of the system's, PEM.")] = None

    def check(self, base_dir: Path) -> None:
        """Raises ConfigError."""
        Plan(self, base_dir)
        trust_context(str(base_dir / self.ca) if self.ca else None)

    def mapping_name(self, base_dir: Path) -> str:
        """The mapping in use."""
        return load_definition(self.definition, base_dir).mapping if self.mapping == "definition" else self.mapping


class Plan:
    """Settings and definition put together. Raises ConfigError for what does not fit."""

    def __init__(self, settings: PullSettings, base_dir: Path) -> None:
        self.definition: Definition = load_definition(settings.definition, base_dir)
        wanted = set(self.definition.parameters)
        for name in sorted(wanted - set(settings.parameters)):
            raise ConfigError(f"`{name}` is missing: {self.definition.parameters[name]}", place="parameters")
        for name in sorted(set(settings.parameters) - wanted):
            raise ConfigError(f"the definition has no parameter `{name}`", place="parameters")
        if bool(settings.each) != bool(self.definition.each):
            what = f"values of `{self.definition.each}`" if self.definition.each else "none: the API is one stream"
            raise ConfigError(f"`each` takes {what}", place="each")
        self.values = dict(settings.parameters)
        self.base = check_url(
            (settings.base or fill(self.definition.base, self.values)).rstrip("/"), allow_http=settings.allow_private
        )
        self.credential = Credential(settings.auth, self.definition.auth, self.values, base_dir)
        if self.credential.token_url:
            check_url(self.credential.token_url, allow_http=settings.allow_private)
        self.each = settings.each


class PullSource:
    """`plugin.Source`."""

    guarantee: ClassVar[str] = "exactly once, within the dedupe window, of what the vendor gives"
    acknowledges: ClassVar[str] = "its own durable place, saved after the commit"

    def __init__(self, settings: PullSettings, context: SourceContext) -> None:
        self._settings = settings
        self._context = context
        self._streams: list[Stream] = []

    async def run(self, intake: Intake, stop: asyncio.Event) -> None:
        """See `plugin.Source`."""
        settings, context = self._settings, self._context
        plan = Plan(settings, context.base_dir)
        client = OutboundClient(
            allow_private=settings.allow_private,
            timeout_s=settings.timeout.seconds,
            connections=2,
            ca_file=str(context.base_dir / settings.ca) if settings.ca else None,
        )
        places = Places(context.state_dir)
        if places.is_lost:
            log.error(
                "the places of a pull source are damaged; it begins anew", source=context.name, start_s=settings.start.seconds
            )
        caller = Caller(client, plan.credential, plan.base, settings.page_max.bytes)
        interval_s = (settings.interval or Duration(plan.definition.interval)).seconds
        self._streams = [
            Stream(
                value or plan.definition.name,
                context.name,
                plan.definition,
                _values(plan, value),
                caller,
                places,
                settings.start.seconds,
            )
            for value in plan.each or ("",)
        ]
        try:
            while not stop.is_set():
                stream = min(self._streams, key=lambda one: one.facts.next_at)
                await _rest(stream.facts.next_at - time.monotonic(), stop)
                if not stop.is_set():
                    await self._poll(stream, intake, stop, interval_s)
        finally:
            await client.close()

    def status(self) -> Mapping[str, Any]:
        """Facts for `/v1/status`."""
        now = time.time()
        failing = [stream for stream in self._streams if stream.facts.reason]
        return {
            "reason": "; ".join(f"{stream.name}: {stream.facts.reason}" for stream in failing[:3]),
            "lag_seconds": self._lag(now),
            "streams": {
                stream.name: {
                    "last_success_at": stream.facts.last_success_at,
                    "newest_record_at": stream.facts.newest_at,
                    "failures": stream.facts.failures,
                }
                for stream in self._streams
            },
        }

    async def _poll(self, stream: Stream, intake: Intake, stop: asyncio.Event, interval_s: float) -> None:
        facts = stream.facts
        try:
            has_more = await stream.poll(intake, stop)
        except (StoppedError, NotAcceptingError):
            if not stop.is_set():
                raise
            return
        except TallystickError as error:
            facts.failures += 1
            facts.reason = str(error)
            asked = error.retry_after_s if isinstance(error, RefusedError) else None
            wait_s = backoff_s(facts.failures, BACKOFF_MIN_S, BACKOFF_MAX_S, asked)
            facts.next_at = time.monotonic() + wait_s
            _FAILURES.labels(self._context.name).inc()
            log.warning(
                "a poll failed", source=self._context.name, stream=stream.name, error=facts.reason, again_in_s=round(wait_s, 1)
            )
        else:
            facts.failures, facts.reason = 0, ""
            facts.next_at = time.monotonic() + (0.0 if has_more else interval_s)
            if not has_more:
                facts.last_success_at = time.time()
        _LAG.labels(self._context.name).set(self._lag(time.time()) or 0.0)

    def _lag(self, now: float) -> float | None:
        """Since when the stream that is furthest behind was read to its end; None before the first time."""
        ends = [stream.facts.last_success_at for stream in self._streams]
        if not ends or any(end is None for end in ends):
            return None
        return round(now - min(end for end in ends if end is not None), 1)


def _values(plan: Plan, value: str) -> dict[str, str]:
    return {**plan.values, plan.definition.each: value} if value else plan.values


async def _rest(seconds_: float, stop: asyncio.Event) -> None:
    if seconds_ > 0:
        try:
            async with asyncio.timeout(seconds_):
                await stop.wait()
        except TimeoutError:
            return
