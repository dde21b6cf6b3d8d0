"""``?open=true``: sealed members back in their places, for keys with the permission `open`; on record before the answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from litestar.params import QueryParameter

from tallystick.api.caller import Caller, require
from tallystick.api.deps import ApiDeps

OpenParam = Annotated[
    bool,
    QueryParameter(name="open", description="Put sealed members back. Needs the permission `open` too; on record."),
]


def may_open(caller: Caller, *, wants: bool) -> None:
    """Raises the 403 problem for who wants it and has not the permission."""
    if wants:
        require(caller, "open")


async def open_lines(
    deps: ApiDeps, caller: Caller, tenants: Sequence[str], lines: Sequence[bytes], request_id: str, query: str = ""
) -> list[bytes]:
    """The lines of these tenants (parallel) opened. What was erased or has expired stays sealed."""
    handles = {name: tenant.handle for name in set(tenants) if (tenant := deps.tenants.get(name)) is not None}

    def work() -> list[tuple[bytes, int]]:
        return [deps.opener.open(handles[name], line) for name, line in zip(tenants, lines, strict=True)]

    opened = await deps.reads.run(work)
    for name in sorted(handles):
        count = sum(1 for at, (_, groups) in enumerate(opened) if groups and tenants[at] == name)
        details = {"query": query, "events": count}
        await deps.auditor.record(caller, "opening", tenants=[name], request_id=request_id, details=details)
    return [line for line, _ in opened]
