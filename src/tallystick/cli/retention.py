"""`retention`: how long events are kept, and what would expire when."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tallystick.cli.connect import connect
from tallystick.cli.output import JsonOption, KeyOption, UrlOption, console, print_json, print_table, safe, wants_json

retention_app = typer.Typer(help="How long events are kept, and what would expire when.", no_args_is_help=True)

TenantOption = Annotated[str | None, typer.Option("--tenant", help="Only this tenant.")]


def register(app: typer.Typer) -> None:
    app.add_typer(retention_app, name="retention")


@retention_app.command("plan")
def plan(tenant: TenantOption = None, url: UrlOption = None, key: KeyOption = None, json: JsonOption = False) -> None:
    """Show what would expire when, and how many bytes that frees. Nothing is done.

    Example:

      tallystick retention plan --tenant acme
    """
    with connect(url, key) as client:
        page = client.get("/v1/retention", tenant=tenant)
    if wants_json(json):
        print_json(page)
        return
    print_table(
        ("class", "period", "floor", "where", "other periods"),
        [(row["name"], row["period"], row["floor"], row["where"] or "", _periods(row["tenants"])) for row in page["classes"]],
    )
    print_table(
        ("tenant", "class", "month", "events", "bytes", "first expires", "last expires", "due now"),
        [
            (
                row["tenant"],
                row["class"],
                row["month"],
                row["events"],
                row["bytes"],
                row["expires_from"] or "never",
                row["expires_at"] or "never",
                row["due_events"],
            )
            for row in page["plan"]
        ],
    )
    for one in page["coming"]:
        whose = safe(one["tenant"] or "all tenants")
        console.print(f"from {one['at']} on {safe(one['class'])} events of {whose} are kept for {one['period']}")
    console.print(f"due now: {page['due_events']} events, {page['due_bytes']} bytes")
    if page["brake"]:
        console.print(f"STOPPED: {safe(page['brake']['reason'])}. If that is right: tallystick retention resume")


@retention_app.command("resume")
def resume(url: UrlOption = None, key: KeyOption = None, json: JsonOption = False) -> None:
    """Let expiry go on after its brake stopped it: what is due now may go. Look at `retention plan` first."""
    with connect(url, key) as client:
        released = client.post("/v1/retention/resume")
    if wants_json(json):
        print_json(released)
    else:
        console.print(f"released: {safe(released['reason'])}")


def _periods(tenants: dict[str, Any]) -> str:
    return safe(", ".join(f"{name} {period}" for name, period in tenants.items()))
