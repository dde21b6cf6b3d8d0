"""``/v1/report``: what the log can show for the controls of a framework, streamed part by part as JSON lines.

    {"part":"head", …, "parts": how many lines follow}
    {"part":"control", "id", "title", "asks", "query", "count", "samples": [{…, "line", "proof"}]}      one for each control
    {"part":"log" …} {"part":"deliveries" …} …                                                    `report_parts`
    {"part":"limits", "limits": [{"code","text"}]}                                                 `report_limits`; the last line

An answer without its last line broke off. Making a report is an export, and on record as one before the first line goes out.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Annotated, Any

import msgspec
from litestar import Request, get
from litestar.params import QueryParameter
from litestar.response import Stream

from tallystick import __version__
from tallystick.api.caller import Caller, require
from tallystick.api.deps import ApiDeps, CallerDep, DepsDep
from tallystick.api.export import EXPORTS_MAX
from tallystick.api.params import FromTime, TenantParam, ToTime, bad_parameter, read_range, request_id_of
from tallystick.api.proof import NotSealedError, build_event_proof
from tallystick.api.report_entries import Period
from tallystick.api.report_limits import find_limits
from tallystick.api.report_parts import PARTS, Subject
from tallystick.api.search import Asked, record_search, visible_tenants
from tallystick.errors import OverloadedError
from tallystick.query.request import Page, SearchRequest
from tallystick.reports.framework import Control, Framework, load_frameworks

FORMAT = "tallystick.report/v1"
_TENANTS_MAX = 100
_DEFAULT_PERIOD = timedelta(days=90)
Step = Callable[[], Awaitable[dict[str, Any]]]


@get(
    "/v1/report",
    operation_id="makeReport",
    tags=["reviews"],
    summary="What the log can show for the controls of a framework",
    media_type="application/x-ndjson",
)
async def make_report(
    request: Request[Any, Any, Any],
    caller: CallerDep,
    deps: DepsDep,
    framework: Annotated[
        str, QueryParameter(name="framework", description="soc2, iso27001, pci, hipaa, gdpr, or one of your own.", max_length=32)
    ],
    start: FromTime = None,
    end: ToTime = None,
    tenant: TenantParam = None,
    samples: Annotated[int, QueryParameter(name="samples", description="Sample events for each control.", ge=0, le=25)] = 3,
) -> Stream:
    """One JSON document a line; the first says how many follow, the last has what the report cannot show. Without `from` the period is the last 90 days.

    Keys are listed for a caller with the permission `keys`; the server's own log is part of it for a key bound to no tenant.
    """
    require(caller, "read")
    now = datetime.now(UTC)
    first, last = read_range(start, end, now)
    last = min(last or now, now)
    period = Period(first or last - _DEFAULT_PERIOD, last)
    if period.start >= period.end:
        raise bad_parameter("from", "the period is empty")
    found = (await deps.reads.run(lambda: load_frameworks(deps.config))).get(framework)
    if found is None:
        raise bad_parameter("framework", "there is no such framework; there are soc2, iso27001, pci, hipaa, gdpr, and your own")
    tenants = visible_tenants(deps, caller, tenant)
    if len(tenants) > _TENANTS_MAX:
        raise bad_parameter("tenant", "this key sees many tenants; name one")
    asked = Asked("", period.start, period.end, tenant=tenant)
    await record_search(deps, caller, asked, tenants, "export", request_id_of(request), format="report", framework=framework)
    stream = ReportStream(deps, _steps(Subject(deps, caller, tenants, period), found, samples, now))
    request.scope["state"]["closers"] = [stream.aclose]
    return Stream(stream, media_type="application/x-ndjson")


class ReportStream:
    """An async iterator over the lines; counts as an open export until it is exhausted or closed. Raises OverloadedError."""

    def __init__(self, deps: ApiDeps, steps: Iterator[Step]) -> None:
        if deps.open_exports >= EXPORTS_MAX:
            raise OverloadedError("too many exports are running", retry_after_s=10)
        deps.open_exports += 1
        self._deps = deps
        self._steps = steps
        self._is_open = True

    def __aiter__(self) -> ReportStream:
        return self

    async def __anext__(self) -> bytes:
        step = next(self._steps, None) if self._is_open else None
        if step is None:
            await self.aclose()
            raise StopAsyncIteration
        return msgspec.json.encode(await step()) + b"\n"

    async def aclose(self) -> None:
        """Begin no further part."""
        if self._is_open:
            self._is_open = False
            self._deps.open_exports -= 1


def _steps(subject: Subject, framework: Framework, samples: int, now: datetime) -> Iterator[Step]:
    """The parts in order, each made when its turn comes; the last looks at all before it."""
    controls: list[dict[str, Any]] = []
    parts: dict[str, Any] = {}

    async def head() -> dict[str, Any]:
        return _head(subject, framework, now)

    async def control(one: Control) -> dict[str, Any]:
        controls.append(await _control(subject, one, samples))
        return controls[-1]

    async def part(name: str) -> dict[str, Any]:
        parts[name] = await subject.deps.searches.run(lambda: PARTS[name][1](subject))
        return {"part": name, "title": PARTS[name][0], **parts[name]}

    async def limits() -> dict[str, Any]:
        end = _time(subject.period.end)
        return {"part": "limits", "title": "What this report cannot show", "limits": find_limits(framework, controls, parts, end)}

    yield head
    yield from (partial(control, one) for one in framework.controls)
    yield from (partial(part, name) for name in PARTS)
    yield limits


def _head(subject: Subject, framework: Framework, now: datetime) -> dict[str, Any]:
    caller: Caller = subject.caller
    return {
        "part": "head",
        "format": FORMAT,
        "parts": len(framework.controls) + len(PARTS) + 1,
        "framework": {name: getattr(framework, name) for name in ("id", "name", "version", "about", "keep_days", "keep_why")},
        "from": _time(subject.period.start),
        "to": _time(subject.period.end),
        "time": "occurred_at",
        "tenants": list(subject.tenants),
        "made_at": _time(now),
        "made_by": {"owner": caller.owner, "key": caller.key_id},
        "server": {"name": subject.deps.server_name, "version": __version__, "config": subject.deps.config.hash},
    }


async def _control(subject: Subject, control: Control, samples: int) -> dict[str, Any]:
    """Count and newest events. The samples are searched for after the count: both are of the same period, which is over."""
    deps = subject.deps
    asked = subject.request(control.query)
    counted = await deps.searches.run(lambda: deps.engine.count(asked))
    rows: list[dict[str, Any]] = []
    if samples and counted.total:
        page = await deps.searches.run(lambda: deps.engine.search(_first(asked, samples)))
        rows = [await _sample(deps, page, place) for place in range(len(page.events))]
    facts = {name: getattr(control, name) for name in ("id", "title", "asks", "query")}
    return {
        "part": "control",
        **facts,
        "see": list(control.see),
        "count": None if counted.partial else counted.total,
        "samples": rows,
    }


def _first(asked: SearchRequest, samples: int) -> SearchRequest:
    return SearchRequest(asked.tenants, asked.query, asked.start, asked.end, asked.time, "desc", samples)


async def _sample(deps: ApiDeps, page: Page, place: int) -> dict[str, Any]:
    """One event: its line, which is the leaf, and the proof from it to its tenant's signed head; "" while it is not sealed."""
    tenant, index = page.tenants[place], page.indexes[place]
    try:
        proof = await build_event_proof(deps, tenant, index)
    except NotSealedError:
        proof = ""
    return {"tenant": tenant, "index": index, "line": page.events[place].decode(), "proof": proof}


def _time(at: datetime) -> str:
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")


HANDLERS = [make_report]
