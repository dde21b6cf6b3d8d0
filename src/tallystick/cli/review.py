"""`review`: who looked through which events, who stands for it, and what is due."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tallystick.cli.connect import connect
from tallystick.cli.output import JsonOption, KeyOption, UrlOption, console, print_json, print_table, safe, wants_json
from tallystick.errors import ConfigError

review_app = typer.Typer(help="Reviews: look through events, sign, see what is due.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    app.add_typer(review_app, name="review")


@review_app.command("start")
def start(
    schedule: Annotated[str, typer.Argument(help="Name of a review of the configuration; else give --tenant.")] = "",
    tenant: Annotated[
        str, typer.Option("--tenant", "-t", help="Whose events, for a review that the configuration does not name.")
    ] = "",
    query: Annotated[str, typer.Option("--query", help="Which of them; all without it.")] = "",
    start: Annotated[
        str | None,
        typer.Option("--from", help="Begin of the period, as in 2027-01-01T00:00:00Z or -30d; default: where the last ended."),
    ] = None,
    end: Annotated[str | None, typer.Option("--to", help="End of the period; default: now.")] = None,
    url: UrlOption = None,
    key: KeyOption = None,
    json: JsonOption = False,
) -> None:
    """Begin a review: fixes what is looked at, counts it, and says how to look at it.

    Examples:

      tallystick review start access
      tallystick review start -t acme --query 'action:role.*' --from -30d
    """
    document = {"schedule": schedule, "tenant": tenant, "query": query, "from": start, "to": end}
    with connect(url, key) as client:
        made = client.post("/v1/reviews", document)
    if wants_json(json):
        print_json(made)
        return
    count = "not counted in time" if made["events"] is None else f"{made['events']:,} events"
    console.print(f"started: {made['id']}  {count}, received from {_short(made['from'])} to {_short(made['to'])}")
    console.print(f"look:    tallystick search '{safe(made['query'])}' --tenant {made['tenant']}, or the console")
    console.print(f"sign it: tallystick review sign {made['id']} --clean --note '…'")


@review_app.command("sign")
def sign(
    id: str,
    note: Annotated[str, typer.Option("--note", help="What was looked at and found; goes on record.")],
    clean: Annotated[bool, typer.Option("--clean", help="Nothing was found.")] = False,
    findings: Annotated[bool, typer.Option("--findings", help="Something was found; the note says what.")] = False,
    next_day: Annotated[
        str, typer.Option("--next", help="The day to look again, as in 2027-01-31; a review of the configuration has its own.")
    ] = "",
    url: UrlOption = None,
    key: KeyOption = None,
    json: JsonOption = False,
) -> None:
    """Stand for a review, once and for good.

    Example:

      tallystick review sign r0c4f1e2a9b3d --clean --note 'all role changes have a ticket'
    """
    if clean == findings:
        raise ConfigError("say --clean or --findings", hint="A sign-off says whether something was found")
    document = {"outcome": "clean" if clean else "findings", "note": note, "next": next_day}
    with connect(url, key) as client:
        made = client.post(f"/v1/reviews/{id}/sign", document)
    if wants_json(json):
        print_json(made)
    else:
        console.print(f"signed: {made['id']}  {made['outcome']}, by {safe(made['signed_by'])} at {made['signed_at']}")


@review_app.command("list")
def list_reviews(url: UrlOption = None, key: KeyOption = None, json: JsonOption = False) -> None:
    """List what is due, and every review."""
    with connect(url, key) as client:
        page = client.get("/v1/reviews")
    if wants_json(json):
        print_json(page)
        return
    rows = [(_name(one), one["tenant"], one["owner"], _short(one["last_signed_at"]) or "never", _due(one)) for one in page["due"]]
    if rows:
        print_table(("due", "tenant", "owner", "last signed", "when"), rows)
    if not page["reviews"]:
        console.print("No reviews yet.")
        return
    print_table(("id", "review", "tenant", "events", "started", "outcome", "signed"), map(_row, page["reviews"]))


@review_app.command("show")
def show(id: str, url: UrlOption = None, key: KeyOption = None, json: JsonOption = False) -> None:
    """Show one review, with its note."""
    with connect(url, key) as client:
        page = client.get(f"/v1/reviews/{id}")
    if wants_json(json):
        print_json(page)
        return
    for name, value in page.items():
        if value not in (None, ""):
            console.print(f"{name:<12} {safe(value)}")


def _name(subject: dict[str, Any]) -> str:
    """Of a review, or of what is due."""
    return subject["schedule"] or subject["query"] or "all events"


def _due(due: dict[str, Any]) -> str:
    if due["due_at"] is None:
        return "when there are events"
    at = _short(due["due_at"])
    return f"OVERDUE since {at}" if due["is_overdue"] else at


def _row(review: dict[str, Any]) -> tuple[object, ...]:
    events = "?" if review["events"] is None else review["events"]
    started = f"{_short(review['started_at'])} {review['started_by']}"
    signed = f"{_short(review['signed_at'])} {review['signed_by']}".strip() or "not yet"
    return review["id"], _name(review), review["tenant"], events, started, review["outcome"], signed


def _short(time: str | None) -> str:
    """A time without what is below the minute; the JSON has all of it."""
    return (time or "")[:16].replace("T", " ")
