"""`drift`: what changed in the events of a source."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from tallystick.cli.connect import connect
from tallystick.cli.output import JsonOption, KeyOption, UrlOption, console, errors, print_json, safe, wants_json
from tallystick.query.drift import Sample, compare


def register(app: typer.Typer) -> None:
    app.command("drift")(drift)


def drift(
    source: Annotated[str, typer.Argument(help="A source's name.")],
    last: Annotated[str, typer.Option("--last", help="The time that is looked at, up to now.")] = "24h",
    before: Annotated[str, typer.Option("--before", help="How far back the time before it reaches, as in 7d.")] = "7d",
    events: Annotated[int, typer.Option("--events", help="At most this many events of each, the newest.", min=1)] = 10_000,
    tenant: Annotated[str | None, typer.Option("--tenant", help="Only this tenant.")] = None,
    url: UrlOption = None,
    key: KeyOption = None,
    json: JsonOption = False,
) -> None:
    """Say which members and actions are new in the events of a source, and which went.

    Examples:

      tallystick drift billing
      tallystick drift okta --last 1h --before 30d --json
    """
    query = f'source.name:"{source}"'
    with connect(url, key) as client, _progress() as progress:
        after = client.search(query, limit=events, tenant=tenant, from_=f"-{last}")
        earlier = client.search(query, limit=events, tenant=tenant, from_=f"-{before}", to=f"-{last}")
        report = compare(_sample(earlier, "before", events, progress), _sample(after, f"last {last}", events, progress))
    if wants_json(json):
        print_json({"source": source, **report})
        return
    console.print(f"{report['events_before']:,} events before, {report['events_after']:,} in the last {safe(last)}")
    if not report["events_before"] or not report["events_after"]:
        console.print(
            "There is nothing to compare. Try a longer --last or --before, and see `tallystick status` for the names of sources."
        )
        return
    titles = {
        "new_fields": "new fields",
        "vanished_fields": "fields that went",
        "new_actions": "new actions",
        "vanished_actions": "actions that went",
    }
    for name, title in titles.items():
        for found, share in report[name].items():
            console.print(f"{title:<18} {safe(found)}  ({share:.1%} of events)")
    if not any(report[name] for name in titles):
        console.print("No change.")


def _sample(found: Iterable[dict[str, Any]], title: str, events: int, progress: Progress) -> Sample:
    sample, task = Sample(), progress.add_task(safe(title), total=events)
    for event in found:
        sample.add(event)
        progress.advance(task)
    return sample


def _progress() -> Progress:
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, console=errors, transient=True, disable=not sys.stderr.isatty())
