"""Verbs that manage a server over HTTP: keys, tenants, destinations, dead letters, quarantine."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from rich.progress import MofNCompleteColumn, Progress, TextColumn

from tallystick.cli.connect import connect
from tallystick.cli.output import JsonOption, KeyOption, UrlOption, console, errors, print_json, print_rows, safe, wants_json
from tallystick.client import Client

keys_app = typer.Typer(help="API keys: make, list, revoke.", no_args_is_help=True)
tenants_app = typer.Typer(help="Tenants: make, list.", no_args_is_help=True)
destinations_app = typer.Typer(help="Destinations: list, pause, resume, probe, replay.", no_args_is_help=True)
dead_letters_app = typer.Typer(help="Events that a destination refused for good.", no_args_is_help=True)
quarantine_app = typer.Typer(help="Records that could not become events.", no_args_is_help=True)

_FAILURES_SHOWN = 20

TenantOption = Annotated[str | None, typer.Option("--tenant", help="Only this tenant.")]


def register(app: typer.Typer) -> None:
    app.add_typer(keys_app, name="keys")
    app.add_typer(tenants_app, name="tenants")
    app.add_typer(destinations_app, name="destinations")
    app.add_typer(dead_letters_app, name="dead-letters")
    app.add_typer(quarantine_app, name="quarantine")


def _items(document: Any, name: str) -> list[dict[str, Any]]:
    rows = document.get(name, []) if isinstance(document, dict) else document
    return list(rows)


def _done(document: Any, is_json: bool, text: str) -> None:
    if wants_json(is_json):
        print_json(document)
    else:
        console.print(text)


@keys_app.command("create")
def create_key(
    owner: Annotated[str, typer.Option("--owner", help="Who answers for it.")],
    permission: Annotated[list[str], typer.Option("--permission", "-p", help="ingest, read, open, verify, operate, keys, approve")],
    purpose: Annotated[str, typer.Option("--purpose", help="What it is for.")] = "",
    tenant: Annotated[list[str] | None, typer.Option("--tenant", "-t", help="Tenants it may touch; repeat for more.")] = None,
    expires: Annotated[str | None, typer.Option("--expires", help="RFC 3339 time at which it ends.")] = None,
    url: UrlOption = None,
    key: KeyOption = None,
    json: JsonOption = False,
) -> None:
    """Make a key; its secret is shown once.

    Example:

      tallystick keys create --owner payments -p ingest -t acme
    """
    document = {"owner": owner, "purpose": purpose, "permissions": permission, "tenants": tenant or [], "expires_at": expires}
    with connect(url, key) as client:
        made = client.post("/v1/keys", {name: value for name, value in document.items() if value not in (None, "")})
    _done(made, json, f"{made.get('secret') or made.get('key')}\nKeep it now: it is not shown again.")


@keys_app.command("list")
def list_keys(url: UrlOption = None, key: KeyOption = None, json: JsonOption = False) -> None:
    """List keys, never their secrets."""
    with connect(url, key) as client:
        rows = _items(client.get("/v1/keys"), "keys")
    print_rows(
        rows, ("id", "owner", "purpose", "tenants", "permissions", "expires_at", "last_used_at"), is_json=json, empty="No keys."
    )


@keys_app.command("revoke")
def revoke_key(id: str, url: UrlOption = None, key: KeyOption = None) -> None:
    """Revoke a key; it stops working within five seconds."""
    with connect(url, key) as client:
        client.request("DELETE", f"/v1/keys/{id}")
    console.print(f"revoked {id}")


@tenants_app.command("create")
def create_tenant(name: str, url: UrlOption = None, key: KeyOption = None, json: JsonOption = False) -> None:
    """Make a tenant. Its handle, the name in origins and URLs, is fixed now."""
    with connect(url, key) as client:
        made = client.post("/v1/tenants", {"name": name})
    _done(made, json, f"{made['name']}  {made['handle']}")


@tenants_app.command("list")
def list_tenants(url: UrlOption = None, key: KeyOption = None, json: JsonOption = False) -> None:
    """List tenants and their handles."""
    with connect(url, key) as client:
        rows = _items(client.get("/v1/tenants"), "tenants")
    print_rows(rows, ("name", "handle", "created_at"), is_json=json, empty="No tenants.")


@destinations_app.command("list")
def list_destinations(url: UrlOption = None, key: KeyOption = None, json: JsonOption = False) -> None:
    """List destinations and their state."""
    with connect(url, key) as client:
        rows = _items(client.get("/v1/destinations"), "destinations")
    print_rows(rows, ("name", "type", "guarantee", "state", "reason", "pending"), is_json=json, empty="No destinations.")


def _destination_verb(verb: str, help_text: str) -> None:
    def call(name: str, url: UrlOption = None, key: KeyOption = None, json: JsonOption = False) -> None:
        with connect(url, key) as client:
            _done(client.post(f"/v1/destinations/{name}/{verb}"), json, f"{name}: {verb} done")

    call.__doc__ = help_text
    destinations_app.command(verb)(call)


_destination_verb("pause", "Stop sending to a destination; nothing is lost, it catches up after resume.")
_destination_verb("resume", "Go on sending to a destination.")
_destination_verb("probe", "Try a parked or failing destination now.")


@destinations_app.command("replay")
def replay_destination(
    name: str,
    tenant: Annotated[str, typer.Option("--tenant", help="Whose events.")],
    first: Annotated[int, typer.Option("--from", help="First index.")],
    last: Annotated[int, typer.Option("--to", help="Last index.")],
    url: UrlOption = None,
    key: KeyOption = None,
    json: JsonOption = False,
) -> None:
    """Send a range of a tenant's events to a destination again."""
    with connect(url, key) as client:
        made = client.post(f"/v1/destinations/{name}/replay", {"tenant": tenant, "first_index": first, "last_index": last})
    _done(made, json, f"{name}: replaying {tenant} {first}-{last}")


@dead_letters_app.command("list")
def list_dead_letters(
    destination: Annotated[str | None, typer.Option("--destination", help="Only this destination.")] = None,
    tenant: TenantOption = None,
    url: UrlOption = None,
    key: KeyOption = None,
    json: JsonOption = False,
) -> None:
    """List dead letters with their reasons."""
    with connect(url, key) as client:
        rows = _items(client.get("/v1/dead-letters", destination=destination, tenant=tenant), "dead_letters")
    print_rows(
        rows, ("id", "destination", "tenant", "index", "reason", "attempts", "state"), is_json=json, empty="No dead letters."
    )


@dead_letters_app.command("show")
def show_dead_letter(id: str, url: UrlOption = None, key: KeyOption = None) -> None:
    """Print one dead letter with its event and the destination's reply."""
    with connect(url, key) as client:
        print_json(client.get(f"/v1/dead-letters/{id}"))


@dead_letters_app.command("replay")
def replay_dead_letter(id: str, url: UrlOption = None, key: KeyOption = None, json: JsonOption = False) -> None:
    """Send one dead letter again; doing it twice sends it once."""
    with connect(url, key) as client:
        _done(client.post(f"/v1/dead-letters/{id}/replay"), json, f"replaying {id}")


@dead_letters_app.command("discard")
def discard_dead_letter(
    id: str,
    reason: Annotated[str, typer.Option("--reason", help="Why; it is recorded.")],
    url: UrlOption = None,
    key: KeyOption = None,
    json: JsonOption = False,
) -> None:
    """Give one dead letter up. The account keeps it, with your reason."""
    with connect(url, key) as client:
        _done(client.post(f"/v1/dead-letters/{id}/discard", {"reason": reason}), json, f"discarded {id}")


@quarantine_app.command("list")
def list_quarantine(
    source: Annotated[str | None, typer.Option("--source", help="Only this source.")] = None,
    tenant: TenantOption = None,
    url: UrlOption = None,
    key: KeyOption = None,
    json: JsonOption = False,
) -> None:
    """List quarantined records with their reasons."""
    with connect(url, key) as client:
        rows = _items(client.get("/v1/quarantine", source=source, tenant=tenant), "records")
    print_rows(rows, ("id", "tenant", "source", "code", "message", "state"), is_json=json, empty="The quarantine is empty.")


@quarantine_app.command("show")
def show_quarantined(id: str, url: UrlOption = None, key: KeyOption = None) -> None:
    """Print one quarantined record."""
    with connect(url, key) as client:
        print_json(client.get(f"/v1/quarantine/{id}"))


@quarantine_app.command("counts")
def count_quarantine(tenant: TenantOption = None, url: UrlOption = None, key: KeyOption = None, json: JsonOption = False) -> None:
    """Count quarantined records by source and reason, each with the id of one to look at.

    Example:

      tallystick quarantine counts
    """
    with connect(url, key) as client:
        rows = _items(client.get("/v1/quarantine/counts", tenant=tenant), "counts")
    columns = ("tenant", "source", "mapping", "code", "count", "waiting", "sample")
    print_rows(rows, columns, is_json=json, empty="The quarantine is empty.")


@quarantine_app.command("replay")
def replay_quarantined(
    id: Annotated[str | None, typer.Argument(help="One record; without it, all that wait of --source.")] = None,
    source: Annotated[str | None, typer.Option("--source", help="All records of this source that wait.")] = None,
    code: Annotated[str | None, typer.Option("--code", help="Only those with this reason.")] = None,
    tenant: TenantOption = None,
    url: UrlOption = None,
    key: KeyOption = None,
    json: JsonOption = False,
) -> None:
    """Try quarantined records again, for example after their mapping was fixed. Doing it twice stores no event twice.

    Examples:

      tallystick quarantine replay 4711
      tallystick quarantine replay --source okta --code field_missing
    """
    if (id is None) == (source is None):
        raise typer.BadParameter("name one record, or a --source")
    with connect(url, key) as client:
        if id is not None:
            _done(client.post(f"/v1/quarantine/{id}/replay"), json, f"replayed {id}")
            return
        report = _replay_all(client, source=source, code=code, tenant=tenant)
    failed = report["failed"]
    if wants_json(json):
        print_json(report)
    else:
        console.print(
            f"{report['tried']:,} tried: {report['accepted']:,} accepted, {report['duplicates']:,} stored before, {len(failed):,} failed"
        )
        for failure in failed[:_FAILURES_SHOWN]:
            console.print(f"  {failure['id']}  {safe(failure['code'])}  {safe(failure['message'])}")
    if failed:
        raise typer.Exit(1)


def _replay_all(client: Client, **which: Any) -> dict[str, Any]:
    """Page by page; the counts of all pages."""
    total: dict[str, Any] = {"tried": 0, "accepted": 0, "duplicates": 0, "failed": []}
    after: int | None = -1
    with Progress(
        TextColumn("{task.description}"), MofNCompleteColumn(), console=errors, transient=True, disable=not sys.stderr.isatty()
    ) as progress:
        task = progress.add_task("records tried", total=None)
        while after is not None:
            page = client.post("/v1/quarantine/replay", after=after, **which)
            for name in total:
                total[name] += page[name]
            progress.update(task, completed=total["tried"])
            after = page["next"]
    return total
