"""`status`: is everything well, and if not, why."""

from __future__ import annotations

import typer

from tallystick.cli.connect import connect
from tallystick.cli.output import JsonOption, KeyOption, UrlOption, console, print_json, print_table, safe, wants_json


def register(app: typer.Typer) -> None:
    app.command("status")(status)


def status(url: UrlOption = None, key: KeyOption = None, json: JsonOption = False) -> None:
    """Show what is durable, sealed, archived and delivered, and what is wrong.

    Example:

      tallystick status --json | jq .destinations
    """
    with connect(url, key) as client:
        page = client.get("/v1/status")
    if wants_json(json):
        print_json(page)
        return
    console.print(f"ready     {'yes' if page['ready'] else 'NO'}")
    for reason in page["reasons"]:
        console.print(f"  because {safe(reason)}")
    for warning in page.get("warnings", ()):
        console.print(f"  warning {safe(warning)}")
    print_table(
        ("tenant", "accepted", "sealed", "archived"),
        [(name, row["accepted"], row["sealed"], row["archived"]) for name, row in page["tenants"].items()],
    )
    print_table(
        ("destination", "state", "delivered", "filtered", "dead-lettered", "pending", "lag s", "reason"),
        [
            (
                name,
                row["state"],
                row["delivered"],
                sum(row["filtered"].values()),
                row["dead_lettered"],
                row["pending"],
                f"{row['lag_seconds']:.1f}",
                row.get("reason") or "",
            )
            for name, row in page["destinations"].items()
        ],
    )
