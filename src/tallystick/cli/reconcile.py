"""`reconcile`: what destinations hold, read back and compared with the log."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from tallystick.cli.connect import connect
from tallystick.cli.output import JsonOption, KeyOption, UrlOption, console, errors, print_json, safe, wants_json
from tallystick.client import Client

_CHANGED, _INCOMPLETE = 4, 5
_COUNTS = ("cuts", "events", "objects", "uncompared")
_SHOWN_INDEXES = 20


def register(app: typer.Typer) -> None:
    app.command("reconcile")(reconcile)


def reconcile(
    name: Annotated[str, typer.Argument(help="A destination's name in the configuration.")],
    tenant: Annotated[str | None, typer.Option("--tenant", help="Only what belongs to this tenant.")] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Send what is missing again: the same bytes under the same name, or not at all.")
    ] = False,
    url: UrlOption = None,
    key: KeyOption = None,
    json: JsonOption = False,
) -> None:
    """Read a destination back and say what is missing, changed or foreign there.

    Ends with 0 when it holds exactly what was delivered, with 5 when something is missing, with 4 when something is changed or foreign.

    Examples:

      tallystick reconcile lake
      tallystick reconcile lake --tenant acme --json
      tallystick reconcile lake --repair
    """
    with connect(url, key) as client, _progress() as progress:
        report = _walk(client, name, tenant, is_repairing=repair, progress=progress)
    if wants_json(json):
        print_json(report)
    else:
        _show(report)
    left = [finding for finding in report["findings"] if not finding.get("is_repaired")]
    if any(finding["kind"] != "missing" for finding in left):
        raise typer.Exit(_CHANGED)
    if left:
        raise typer.Exit(_INCOMPLETE)


def _walk(client: Client, name: str, tenant: str | None, *, is_repairing: bool, progress: Progress) -> dict[str, Any]:
    report: dict[str, Any] = {"destination": name, **dict.fromkeys(_COUNTS, 0), "findings": []}
    task = progress.add_task("reading back", total=None)
    after: str | None = None
    while True:
        wanted = {"tenant": tenant, "after": after, "repair": is_repairing}
        body = {field: value for field, value in wanted.items() if value is not None}
        page = client.post(f"/v1/destinations/{name}/reconcile", body)["result"]
        for count in _COUNTS:
            report[count] += page[count]
        report["findings"] += page["findings"]
        progress.update(
            task, description=f"{report['events']:,} events, {report['objects']:,} names, {len(report['findings'])} findings"
        )
        after = page["next"]
        if after is None:
            return report


def _show(report: dict[str, Any]) -> None:
    console.print(
        f"{safe(report['destination'])}: {report['cuts']:,} batches with {report['events']:,} events, {report['objects']:,} names"
    )
    for finding in report["findings"]:
        kind = "repaired" if finding.get("is_repaired") else finding["kind"]
        span = f", indexes {finding['first_index']} to {finding['last_index']}" if "first_index" in finding else ""
        console.print(f"{kind:<9} {safe(finding['place'])}  ({safe(finding['tenant'])}{span}): {safe(finding['detail'])}")
        if indexes := finding.get("indexes"):
            more = ", …" if len(indexes) > _SHOWN_INDEXES else ""
            console.print(f"          events {', '.join(map(str, indexes[:_SHOWN_INDEXES]))}{more}")
        if foreign := finding.get("foreign"):
            console.print(f"          {foreign:,} records that no event of the log gives")
    if report["uncompared"]:
        console.print(f"{report['uncompared']:,} events could not be compared: the log does not give the same bytes any more.")
    if not report["findings"]:
        what = "that could be compared" if report["uncompared"] else "that was delivered"
        console.print(f"Everything {what} is there, and nothing else.")


def _progress() -> Progress:
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    return Progress(*columns, console=errors, transient=True, disable=not sys.stderr.isatty())
