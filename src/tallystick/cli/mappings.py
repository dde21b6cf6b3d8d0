"""`mappings`: what makes events of a product's records, and how well it does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tallystick.cli.output import JsonOption, console, print_json, print_rows, print_table, safe, wants_json

mappings = typer.Typer(help="Mappings: what makes events of a product's records.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    app.add_typer(mappings, name="mappings")


@mappings.command("list")
def list_mappings(json: JsonOption = False) -> None:
    """List the mappings that ship with Tallystick.

    Example:

      tallystick mappings list
    """
    from tallystick.transforms import load_mappings

    rows = [{"name": one.name, "records": one.title} for one in load_mappings().values()]
    print_rows(rows, ("name", "records"), is_json=json, empty="there are none")


@mappings.command("show")
def show(name: Annotated[str, typer.Argument(help="Its name.")], json: JsonOption = False) -> None:
    """Print a mapping's file: a start for one of your own.

    Example:

      tallystick mappings show okta > acme.toml
    """
    from tallystick.transforms.library import find_mapping, mapping_texts

    find_mapping(name, Path())
    text = mapping_texts()[name]
    if json:
        print_json({"name": name, "text": text})
    else:
        typer.echo(text, nl=False)


@mappings.command("report")
def show_report(
    files: Annotated[list[Path], typer.Argument(help="Records: a JSON document, or one record a line; .gz is opened.")],
    mapping: Annotated[
        str | None,
        typer.Option("--mapping", help="Its name, or the file of your own; absent: the one that fits best, file by file."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Say what a mapping makes of records: the share that maps, what was found in them, and what nobody asked for.

    Examples:

      tallystick mappings report audit.jsonl
      tallystick mappings report --mapping acme.toml samples/*.json
    """
    from tallystick.transforms import load_mappings
    from tallystick.transforms.library import find_mapping
    from tallystick.transforms.report import Report, best_mapping, read_records, report

    asked = find_mapping(mapping, Path()) if mapping is not None else None
    reports: dict[str, Report] = {}
    for path in files:
        records = read_records(path)
        chosen = asked or best_mapping(list(load_mappings().values()), records)
        reports[chosen.name] = report(chosen, records, reports.get(chosen.name))
    documents = [one.document() for one in reports.values()]
    if wants_json(json):
        for document in documents:
            print_json(document)
        return
    _print(documents)


def _print(documents: list[dict[str, Any]]) -> None:
    from tallystick.transforms.report import FIELDS

    rows = ((one["mapping"], one["records"], one["mapped_percent"], *one["found_percent"].values()) for one in documents)
    print_table(
        ("mapping", "records", "mapped", *FIELDS), rows, title="Shares in per cent: records that map, and fields found in those"
    )
    for one in documents:
        lists = (
            ("quarantined, by code", one["problems"]),
            ("actions under no rule", one["unsorted_actions"]),
            ("members that nobody asked for", one["unused"]),
            ("texts that are no time", one["bad_times"]),
        )
        for title, counts in lists:
            if counts:
                console.print(f"\n{one['mapping']}: {title}", style="bold")
                for name, count in counts.items():
                    console.print(f"  {count:>7}  {safe(name)}")
