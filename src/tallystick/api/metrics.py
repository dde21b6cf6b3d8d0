"""``/metrics`` and ``/v1/limits``: what all processes count, and every limit in force."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Response, get
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.multiprocess import MultiProcessCollector

from tallystick.api.caller import require_server_wide
from tallystick.api.deps import ApiDeps, CallerDep, DepsDep
from tallystick.api.reviews import count_overdue
from tallystick.config import Duration, IngestLimits, QuerySettings, Size, TenantSettings


@get(
    "/metrics",
    operation_id="getMetrics",
    tags=["operation"],
    summary="Metrics of all processes, for Prometheus",
    media_type="text/plain",
)
async def get_metrics(caller: CallerDep, deps: DepsDep) -> Response[bytes]:
    """One scrape covers every process. No metric names a tenant."""
    require_server_wide(caller, "operate")
    body = await deps.reads.run(_scrape(deps))
    return Response(body, headers={"content-type": CONTENT_TYPE_LATEST})


def _scrape(deps: ApiDeps) -> Any:
    def scrape() -> bytes:
        count_overdue(deps)
        registry = CollectorRegistry()
        MultiProcessCollector(registry, path=str(deps.data_dir / "run" / "metrics"))  # type: ignore[no-untyped-call]
        return generate_latest(registry)

    return scrape


@get("/v1/limits", operation_id="getLimits", tags=["operation"], summary="Every limit in force")
async def get_limits(caller: CallerDep, deps: DepsDep) -> dict[str, Any]:
    """Sizes in bytes, times in seconds."""
    config = deps.config
    return {
        "ingest": _plain(config.limits),
        "query": _plain(config.query),
        "journal": {"queue": config.journal.queue.bytes, "dedupe_events": config.journal.dedupe_events},
        "archive": {"hot_bytes": config.archive.hot_bytes.bytes},
        "delivery": {"cache": config.delivery.cache.bytes},
        "data": {"quota": config.data.quota.bytes, "free_min": config.data.free_min.bytes},
        "tenants": {name: _plain(quota) for name, quota in config.tenants.items() if caller.sees(name)},
        "tail": {"listeners": deps.tail.listeners_max},
    }


def _plain(settings: IngestLimits | QuerySettings | TenantSettings) -> dict[str, Any]:
    return {name: _number(value) for name, value in msgspec.structs.asdict(settings).items()}


def _number(value: Any) -> Any:
    if isinstance(value, Duration):
        return value.seconds
    return value.bytes if isinstance(value, Size) else value


HANDLERS = [get_metrics, get_limits]
