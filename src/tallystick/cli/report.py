"""`report`: what the log can show for the controls of a framework, as one page to print and its data."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tallystick.cli.connect import connect
from tallystick.cli.output import JsonOption, KeyOption, UrlOption, console, errors, print_json, wants_json
from tallystick.client import Client
from tallystick.client.problem import UnavailableError
from tallystick.reports.page import assemble, render


def register(app: typer.Typer) -> None:
    app.command("report")(report)


def report(
    framework: Annotated[str, typer.Option("--framework", help="soc2, iso27001, pci, hipaa, gdpr, or one of the server's own.")],
    start: Annotated[
        str | None,
        typer.Option("--from", help="Begin of the period, as in 2027-01-01T00:00:00Z or -90d; default: 90 days before its end."),
    ] = None,
    end: Annotated[str | None, typer.Option("--to", help="End of the period; default: now.")] = None,
    tenant: Annotated[str | None, typer.Option("--tenant", "-t", help="Only this tenant.")] = None,
    samples: Annotated[int, typer.Option("--samples", help="Sample events for each control, with proofs; at most 25.")] = 3,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The page; its data goes beside it, as .json.")] = None,
    url: UrlOption = None,
    key: KeyOption = None,
    json: JsonOption = False,
) -> None:
    """Make a report: one HTML page that prints, and its data.

    With --json, or when piped, the data is printed; then a page is written only where --out says so.

    Examples:

      tallystick report --framework soc2 --from 2027-01-01T00:00:00Z --to 2027-04-01T00:00:00Z --out q1.html
      tallystick report --framework pci --tenant acme --from -30d --json
    """
    with connect(url, key) as client:
        params = {"framework": framework, "from_": start, "to": end, "tenant": tenant, "samples": samples}
        document = assemble(_lines(client, params))
    is_data = wants_json(json)
    if out is not None or not is_data:
        page = out or Path(f"tallystick-{document['framework']['id']}-{document['from'][:10]}-{document['to'][:10]}.html")
        page.write_text(render(document), encoding="utf-8")
        data = page.with_suffix(".json")
        data.write_bytes(msgspec.json.encode(document))
        errors.print(f"page: {page}  data: {data}", soft_wrap=True)
    if is_data:
        print_json(document)
    else:
        console.print(_summary(document))


def _lines(client: Client, params: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The parts as they come, with progress. Raises UnavailableError when the answer breaks off."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=errors, transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("report", total=None)
        is_whole = False
        for text in client.stream("/v1/report", **params):
            line = msgspec.json.decode(text)
            if line["part"] == "head":
                progress.update(task, total=line["parts"])
            else:
                progress.update(task, advance=1, description=line.get("id") or line["part"])
            is_whole = line["part"] == "limits"
            yield line
    if not is_whole:
        raise UnavailableError("the report broke off before its end", place=client.url, hint="Ask again; the server's log says why")


def _summary(document: dict[str, Any]) -> str:
    counted = sum(one["count"] or 0 for one in document["controls"])
    silent = sum(one["count"] == 0 for one in document["controls"])
    return (
        f"{len(document['controls'])} controls, {counted:,} events, {silent} controls without any; "
        f"{len(document['limits'])} things that it cannot show"
    )
