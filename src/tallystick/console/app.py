"""The whole application of the api process: the HTTP API and the console over it."""

from __future__ import annotations

from litestar import Litestar

from tallystick.api.app import create_app as create_api
from tallystick.api.deps import ApiDeps
from tallystick.console import (
    alerts_page,
    delivery_page,
    events_page,
    integrity_page,
    notice,
    overview_page,
    reconcile_page,
    retention_page,
    status_page,
    thing_page,
)
from tallystick.console.door import ConsoleDoor
from tallystick.console.entrance import entrance
from tallystick.console.sessions import Sessions


def create_app(deps: ApiDeps) -> Litestar:
    """API and console over ``deps``; sessions live as long as the application."""
    sessions = Sessions()
    door = ConsoleDoor(deps, sessions)
    parts = (
        events_page,
        alerts_page,
        overview_page,
        thing_page,
        delivery_page,
        reconcile_page,
        retention_page,
        integrity_page,
        status_page,
        notice,
    )
    pages = [handler for part in parts for handler in part.HANDLERS]
    return create_api(deps, [*pages, *entrance(deps, sessions, door)], door)
