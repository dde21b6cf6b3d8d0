"""Verbs that talk to a server: send, search, tail, explain, export."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.text import Text

from tallystick.cli.connect import connect
from tallystick.cli.output import (
    JsonOption,
    KeyOption,
    UrlOption,
    console,
    errors,
    print_json,
    print_table,
    safe,
    wants_json,
)
from tallystick.client import Client

_BATCH = 1_000
LastOption = Annotated[str | None, typer.Option("--last", help="Only the last while, as in 24h or 30m.")]
TenantOption = Annotated[str | None, typer.Option("--tenant", help="Only this tenant.")]


def register(app: typer.Typer) -> None:
    app.command("send")(send)
    app.command("search")(search)
    app.command("tail")(tail)
    app.command("explain")(explain)
    app.command("export")(export)


def send(
    files: Annotated[list[Path] | None, typer.Argument(help="NDJSON files; standard input when none is named.")] = None,
    on_invalid: Annotated[str, typer.Option("--on-invalid", help="reject or quarantine")] = "reject",
    source: Annotated[str | None, typer.Option("--source", help="Send to this declared source instead of /v1/events.")] = None,
    url: UrlOption = None,
    key: KeyOption = None,
    json: JsonOption = False,
) -> None:
    """Send events, one JSON object a line. Returns when all are on the server's disk.

    Examples:

      tallystick send events.ndjson
      echo '{"action":"user.login","actor":"u_1"}' | tallystick send
      tallystick send --source cloudtrail trail.json
    """
    totals = {"accepted": 0, "duplicates": 0, "filtered": 0, "quarantined": 0}
    with Client(url, key) as client, _progress() as progress:
        for name, data in _inputs(files or []):
            task = progress.add_task(safe(name), total=len(data))
            for body in [data] if source else _batches(data):
                answer = _send_body(client, body, source, on_invalid)
                for field in ("accepted", "duplicates", "filtered"):
                    totals[field] += answer[field]
                totals["quarantined"] += len(answer["quarantined"])
                progress.advance(task, len(body) + 1)
    if wants_json(json):
        print_json(totals)
    else:
        console.print(", ".join(f"{count:,} {field}" for field, count in totals.items()))


def _send_body(client: Client, body: bytes, source: str | None, on_invalid: str) -> dict[str, Any]:
    path = f"/v1/in/{source}" if source else "/v1/events"
    # Records without an id get one from this key, the same in every attempt: a repeat after a lost answer is stored once.
    response = client.request(
        "POST",
        path,
        content=body,
        params={} if source else {"on_invalid": on_invalid},
        headers={"Content-Type": "application/x-ndjson", "Idempotency-Key": secrets.token_hex(16)},
        is_repeatable=True,
    )
    answer: dict[str, Any] = msgspec.json.decode(response.content)
    return answer


def _inputs(files: list[Path]) -> Iterator[tuple[str, bytes]]:
    if not files:
        yield "standard input", sys.stdin.buffer.read()
    for path in files:
        yield path.name, path.read_bytes()


def _batches(data: bytes) -> Iterator[bytes]:
    """Bodies of at most 1,000 lines, cut at line ends."""
    lines = [line for line in data.split(b"\n") if line.strip()]
    for first in range(0, len(lines), _BATCH):
        yield b"\n".join(lines[first : first + _BATCH])


def _progress() -> Progress:
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, console=errors, transient=True, disable=not sys.stderr.isatty())


def search(
    query: Annotated[str, typer.Argument(help="A query; empty for everything. See docs/query.md.")] = "",
    last: LastOption = None,
    tenant: TenantOption = None,
    limit: Annotated[int, typer.Option("--limit", help="At most this many events.")] = 50,
    order: Annotated[str, typer.Option("--order", help="desc (newest first) or asc")] = "desc",
    url: UrlOption = None,
    key: KeyOption = None,
    json: JsonOption = False,
) -> None:
    """Search events, newest first.

    Examples:

      tallystick search 'action:role.* AND outcome:denied' --last 24h
      tallystick search 'actor.id:u_17 ip:10.0.0.0/8' --tenant acme --json
    """
    with connect(url, key) as client:
        found = client.search(query, limit=limit, tenant=tenant, order=order, from_=f"-{last}" if last else None)
        if wants_json(json):
            for event in found:
                print_json(event)
            return
        rows = list(found)
    if not rows:
        console.print("Nothing matches. Try a longer --last, or fewer terms.")
        return
    print_table(("occurred", "actor", "action", "target", "outcome", "id"), map(_event_row, rows))


def _event_row(event: dict[str, Any]) -> tuple[str, ...]:
    target = (event.get("targets") or [{}])[0]
    actor = event["actor"]
    name = actor.get("name") or actor["id"]
    return (
        event["occurred_at"][:19].replace("T", " "),
        name,
        event["action"],
        f"{target.get('type', '')} {target.get('name') or target.get('id', '')}".strip(),
        event.get("outcome", ""),
        event["id"],
    )


def tail(
    query: Annotated[str, typer.Argument(help="Only events that match.")] = "",
    tenant: TenantOption = None,
    url: UrlOption = None,
    key: KeyOption = None,
    json: JsonOption = False,
) -> None:
    """Follow events as they are accepted. Stop with Ctrl-C.

    Example:

      tallystick tail 'outcome:denied'
    """
    with connect(url, key) as client:
        params = {"query": query or None, "tenant": tenant}
        for line in client.stream("/v1/tail", **params):
            if not line.startswith("data:"):
                continue
            event = msgspec.json.decode(line[5:].strip())
            if not isinstance(event, dict) or "action" not in event:
                continue
            if wants_json(json):
                print_json(event)
                sys.stdout.flush()
            else:
                console.print(Text("  ".join(safe(cell) for cell in _event_row(event) if cell)))


def explain(
    id: Annotated[str, typer.Argument(help="An event's id.")],
    tenant: TenantOption = None,
    url: UrlOption = None,
    key: KeyOption = None,
    json: JsonOption = False,
) -> None:
    """Say where one event went: its place in the log, and for each destination its outcome or why it is not there.

    Example:

      tallystick explain 0191e2c4-7b1a-7c3d-9e5f-000000000001
    """
    with connect(url, key) as client:
        document = client.get(f"/v1/events/{id}/explain", tenant=tenant)
    if wants_json(json):
        print_json(document)
        return
    for name, value in document.items():
        if name != "destinations":
            console.print(f"{name:<12} {safe(value)}")
    rows = [
        (name, entry.get("outcome", ""), entry.get("reason") or entry.get("where") or "", entry.get("at") or "")
        for name, entry in _named(document.get("destinations", {}))
    ]
    print_table(("destination", "outcome", "where or why", "when"), rows)


def _named(destinations: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(destinations, dict):
        yield from destinations.items()
    else:
        for entry in destinations:
            yield entry.get("name", entry.get("destination", "")), entry


def export(
    query: Annotated[str, typer.Argument(help="A query; empty for everything.")] = "",
    format: Annotated[str, typer.Option("--format", help="jsonl, csv or parquet")] = "jsonl",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write; standard output when absent.")] = None,
    last: LastOption = None,
    tenant: TenantOption = None,
    url: UrlOption = None,
    key: KeyOption = None,
) -> None:
    """Stream every event that matches. Each line of jsonl is a leaf of the log, byte for byte.

    Examples:

      tallystick export --last 24h -o yesterday.jsonl
      tallystick export 'action:invoice.*' --format csv > invoices.csv
    """
    with connect(url, key) as client, _progress() as progress:
        task = progress.add_task("export", total=None)
        params = {"query": query or None, "format": format, "tenant": tenant, "from_": f"-{last}" if last else None}
        sink = output.open("wb") if output else sys.stdout.buffer
        try:
            for piece in client.stream_bytes("/v1/export", **params):
                sink.write(piece)
                progress.advance(task, len(piece))
            sink.flush()
        finally:
            if output:
                sink.close()
