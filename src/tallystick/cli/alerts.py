"""`alerts`: what rules raised, and what was done about it."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer

from tallystick.cli.connect import connect
from tallystick.cli.output import JsonOption, KeyOption, UrlOption, console, print_json, print_rows, safe, wants_json

alerts_app = typer.Typer(help="Alerts: list, look at, acknowledge, close.", no_args_is_help=True)

TenantOption = Annotated[str | None, typer.Option("--tenant", "-t", help="Whose alert; may be left out when one tenant has it.")]
NoteOption = Annotated[str, typer.Option("--note", help="What there is to say; goes on record.")]
_COLUMNS = ("raised_at", "severity", "state", "tenant", "rule", "title", "actor", "id")


def register(app: typer.Typer) -> None:
    app.add_typer(alerts_app, name="alerts")


@alerts_app.command("list")
def list_alerts(
    state: Annotated[str | None, typer.Option("--state", help="open, acknowledged or closed.")] = None,
    rule: Annotated[str | None, typer.Option("--rule", help="Only of this rule.")] = None,
    severity: Annotated[str | None, typer.Option("--severity", help="At least so severe, as in high.")] = None,
    tenant: TenantOption = None,
    last: Annotated[str, typer.Option("--last", help="How far back, as in 24h or 30d.")] = "30d",
    limit: Annotated[int, typer.Option("--limit", "-n", help="Most alerts.", min=1, max=1000)] = 100,
    url: UrlOption = None,
    key: KeyOption = None,
    json: JsonOption = False,
) -> None:
    """List alerts, the newest first.

    Example:

      tallystick alerts list --state open --severity high
    """
    params: dict[str, Any] = {"state": state, "rule": rule, "severity": severity, "tenant": tenant, "from": f"-{last}"}
    params = {name: value for name, value in params.items() if value is not None}
    rows: list[dict[str, Any]] = []
    with connect(url, key) as client:
        page = client.get("/v1/alerts", **params, limit=limit)
        rows += page["alerts"]
        while page["next"] and len(rows) < limit:
            page = client.get("/v1/alerts", **params, limit=limit - len(rows), cursor=page["next"])
            rows += page["alerts"]
    print_rows(rows, _COLUMNS, is_json=json, empty="No alerts.")


@alerts_app.command("show")
def show(id: str, tenant: TenantOption = None, url: UrlOption = None, key: KeyOption = None, json: JsonOption = False) -> None:
    """Show an alert, the events that fired it, and what was done about it."""
    with connect(url, key) as client:
        alert = client.get(f"/v1/alerts/{quote(id, safe='')}", **_of(tenant))
    if wants_json(json):
        print_json(alert)
        return
    console.print(f"{alert['severity']}: {safe(alert['title'])}  ({alert['rule']}, {safe(alert['tenant'])})")
    console.print(f"  {safe(alert['description'])}")
    console.print(f"  raised {alert['raised_at']} over {alert['count']} events, {alert['first_at']} to {alert['last_at']}")
    for name, value in alert["group"].items():
        console.print(f"  {safe(name)}: {safe(value)}")
    console.print(f"  events: {safe(' '.join(alert['events']))}")
    for step in alert["history"]:
        console.print(f"  {step['at']} {step['state']} by {safe(step['by'])}" + (f": {safe(step['note'])}" if step["note"] else ""))


@alerts_app.command("ack")
def ack(
    id: str,
    note: NoteOption = "",
    tenant: TenantOption = None,
    url: UrlOption = None,
    key: KeyOption = None,
    json: JsonOption = False,
) -> None:
    """Say that you are on it."""
    _change(id, "acknowledge", note, tenant, url, key, is_json=json)


@alerts_app.command("close")
def close(
    id: str,
    note: NoteOption = "",
    tenant: TenantOption = None,
    url: UrlOption = None,
    key: KeyOption = None,
    json: JsonOption = False,
) -> None:
    """Say that it is done with.

    Example:

      tallystick alerts close alert:many-denials:1f… --note 'a test of ours'
    """
    _change(id, "close", note, tenant, url, key, is_json=json)


@alerts_app.command("reopen")
def reopen(
    id: str,
    note: NoteOption = "",
    tenant: TenantOption = None,
    url: UrlOption = None,
    key: KeyOption = None,
    json: JsonOption = False,
) -> None:
    """Take an acknowledgement or a closing back."""
    _change(id, "reopen", note, tenant, url, key, is_json=json)


def _change(id: str, verb: str, note: str, tenant: str | None, url: str | None, key: str | None, *, is_json: bool) -> None:
    with connect(url, key) as client:
        alert = client.post(f"/v1/alerts/{quote(id, safe='')}/{verb}", {"note": note}, **_of(tenant))
    if wants_json(is_json):
        print_json(alert)
    else:
        console.print(f"{alert['state']}: {alert['id']}  {safe(alert['title'])}")


def _of(tenant: str | None) -> dict[str, str]:
    return {"tenant": tenant} if tenant else {}
