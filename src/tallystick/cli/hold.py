"""`hold`: legal holds."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tallystick.cli.connect import connect
from tallystick.cli.output import JsonOption, KeyOption, UrlOption, console, print_json, print_rows, safe, wants_json

hold_app = typer.Typer(help="Legal holds: keep events from expiring.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    app.add_typer(hold_app, name="hold")


@hold_app.command("place")
def place(
    tenant: Annotated[list[str], typer.Option("--tenant", "-t", help="Whose events; repeat for more.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; goes on record.")],
    owner: Annotated[str, typer.Option("--owner", help="Who answers for it.")],
    review: Annotated[str, typer.Option("--review", help="The day to look at it again, as in 2027-01-31.")],
    query: Annotated[str, typer.Option("--query", help="Only events that match; all without it.")] = "",
    url: UrlOption = None,
    key: KeyOption = None,
    json: JsonOption = False,
) -> None:
    """Keep events from expiring, whatever their period.

    Example:

      tallystick hold place -t acme --query 'actor.id:u_1' --reason 'case 7' --owner legal --review 2027-01-31
    """
    document = {"tenants": tenant, "query": query, "reason": reason, "owner": owner, "review": review}
    with connect(url, key) as client:
        _show(client.post("/v1/holds", document), json, "placed")


@hold_app.command("list")
def list_holds(url: UrlOption = None, key: KeyOption = None, json: JsonOption = False) -> None:
    """List holds, lifted ones included."""
    with connect(url, key) as client:
        rows = client.get("/v1/holds")["holds"]
    columns = ("id", "tenants", "query", "reason", "owner", "review", "is_overdue", "lifted_at")
    print_rows(rows, columns, is_json=json, empty="No holds.")


@hold_app.command("report")
def report(id: str, url: UrlOption = None, key: KeyOption = None, json: JsonOption = False) -> None:
    """Say how many events a hold's query matches now."""
    with connect(url, key) as client:
        page = client.get(f"/v1/holds/{id}")
    if wants_json(json):
        print_json(page)
        return
    console.print(f"{page['id']}: {safe(page['reason'])}, owner {safe(page['owner'])}, review {page['review']}")
    for name, count in page["events"].items():
        console.print(f"  {safe(name)}: {'not counted in time' if count is None else count}")


@hold_app.command("review")
def review_hold(
    id: str,
    note: Annotated[str, typer.Option("--note", help="Why it is still needed.")],
    review: Annotated[str, typer.Option("--review", help="The day of the next review, as in 2027-01-31.")],
    url: UrlOption = None,
    key: KeyOption = None,
    json: JsonOption = False,
) -> None:
    """Say that a hold is still needed, and when to look again."""
    with connect(url, key) as client:
        _show(client.post(f"/v1/holds/{id}/review", {"note": note, "review": review}), json, "reviewed")


@hold_app.command("lift")
def lift(
    id: str,
    reason: Annotated[str, typer.Option("--reason", help="Why; goes on record.")],
    url: UrlOption = None,
    key: KeyOption = None,
    json: JsonOption = False,
) -> None:
    """Let go: what is past its period expires with the next look."""
    with connect(url, key) as client:
        _show(client.post(f"/v1/holds/{id}/lift", {"reason": reason}), json, "lifted")


def _show(hold: Any, is_json: bool, done: str) -> None:
    if wants_json(is_json):
        print_json(hold)
    else:
        console.print(f"{done}: {hold['id']}  review {hold['review']}")
