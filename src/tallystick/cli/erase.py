"""`erase`: requests for the erasure of a person."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tallystick.cli.connect import connect
from tallystick.cli.output import JsonOption, KeyOption, UrlOption, console, print_json, print_rows, safe, wants_json

erase_app = typer.Typer(help="Erasure of a person: destroy the key of the sealed members.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    app.add_typer(erase_app, name="erase")


@erase_app.command("request")
def request_erasure(
    subject: Annotated[str, typer.Argument(help="The person, as [privacy.TENANT] subject names them.")],
    tenant: Annotated[str, typer.Option("--tenant", "-t", help="Whose events.")],
    basis: Annotated[
        str, typer.Option("--basis", help="request, consent-withdrawn, objection, unlawful, legal-duty or other; on record.")
    ] = "request",
    url: UrlOption = None,
    key: KeyOption = None,
    json: JsonOption = False,
) -> None:
    """Ask for the erasure of a person; two owners have to approve.

    Example:

      tallystick erase request u_1 -t acme --basis consent-withdrawn
    """
    with connect(url, key) as client:
        _show(client.post("/v1/erasures", {"tenant": tenant, "subject": subject, "basis": basis}), json)


@erase_app.command("approve")
def approve(id: str, url: UrlOption = None, key: KeyOption = None, json: JsonOption = False) -> None:
    """Agree to a request; with the second owner's approval the cool-off begins."""
    with connect(url, key) as client:
        _show(client.post(f"/v1/erasures/{id}/approve", {}), json)


@erase_app.command("cancel")
def cancel(id: str, url: UrlOption = None, key: KeyOption = None, json: JsonOption = False) -> None:
    """Call a request off, until the key is destroyed."""
    with connect(url, key) as client:
        _show(client.post(f"/v1/erasures/{id}/cancel", {}), json)


@erase_app.command("list")
def list_erasures(url: UrlOption = None, key: KeyOption = None, json: JsonOption = False) -> None:
    """List all requests."""
    with connect(url, key) as client:
        rows = client.get("/v1/erasures")["erasures"]
    columns = ("id", "tenant", "state", "basis", "requested_by", "due_at", "waiting_for", "events", "erased_at", "final_at")
    print_rows(rows, columns, is_json=json, empty="No requests for erasure.")


@erase_app.command("show")
def show(id: str, url: UrlOption = None, key: KeyOption = None, json: JsonOption = False) -> None:
    """Show one request."""
    with connect(url, key) as client:
        _show(client.get(f"/v1/erasures/{id}"), json)


def _show(page: dict[str, Any], json: bool) -> None:
    if wants_json(json):
        print_json(page)
        return
    for name, value in page.items():
        if name == "approvals":
            value = ", ".join(f"{one['owner']} ({one['at']})" for one in value)
        if value not in (None, ""):
            console.print(f"{name:<14} {safe(str(value))}")
