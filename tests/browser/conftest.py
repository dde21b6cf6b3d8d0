"""One running server with events to look at, and Debian's Chromium signed in to its console."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from support.server import ADMIN_KEY, Server, wait_for

CHROMIUM = "/usr/bin/chromium"
HOSTILE = ["<img src=x onerror=alert(1)>", "</script><script>alert(1)</script>", "{{7*7}}", "\u202egnp.exe"]
CONFIGURATION = """
[seal]
root_interval = "500ms"
[destinations.disk]
type = "file"
path = "out/events.jsonl"
[destinations.store]
type = "object_store"
url = "objects"
"""


def story() -> list[dict[str, Any]]:
    """A day of events, one of them changed something, some hostile."""
    now = datetime.now(UTC)

    def at(minutes: int) -> str:
        return (now - timedelta(minutes=minutes)).isoformat()

    ana = {"type": "user", "id": "u_17", "name": "Ana", "roles": ["support"]}
    views = [
        {"id": f"view-{number}", "action": "invoice.view", "actor": ana, "targets": [{"type": "invoice", "id": f"i_{number}"}],
         "outcome": "success", "occurred_at": at(90 + number * 9)}
        for number in range(60)
    ]  # fmt: skip
    grant = {
        "id": "grant", "action": "role.grant", "actor": ana, "targets": [{"type": "user", "id": "u_9", "name": "Bob"}], "outcome": "success",
        "changes": [{"path": "/role", "op": "replace", "before": "viewer", "after": "admin"}], "occurred_at": at(70),
    }  # fmt: skip
    denied = {"id": "denied", "action": "role.grant", "actor": "mallory", "outcome": "denied", "occurred_at": at(75)}
    hostile = [
        {"id": f"hostile-{number}", "action": "odd.thing", "actor": {"type": "user", "id": text, "name": text},
         "targets": [{"type": text, "id": text}], "reason": text, "metadata": {text: text}, "occurred_at": at(80)}
        for number, text in enumerate(HOSTILE)
    ]  # fmt: skip
    return [*views, grant, denied, *hostile]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the events of `story` in tenant acme."""
    made = Server(tmp_path_factory.mktemp("browser"), CONFIGURATION).start()
    try:
        wait_for(lambda: made.http.get("/v1/limits").status_code == 200, "the api process")
        made.http.post("/v1/tenants", json={"name": "acme"}).raise_for_status()
        made.http.post("/v1/events", json=[{"tenant": "acme", **item} for item in story()]).raise_for_status()
        chained = {"tenant": "acme", "chain": "true"}
        wait_for(lambda: made.http.get("/v1/events/grant/proof", params=chained).status_code == 200, "the root log")
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Debian's Chromium, headless. It ends with the module: while it runs, no asyncio test can."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def session_state(server: Server, chromium: Browser) -> Any:
    """The cookies of a browser that signed in with the admin key."""
    context = chromium.new_context()
    page = context.new_page()
    page.goto(f"{server.url}/login")
    page.fill("input[name=key]", ADMIN_KEY)
    page.click("form button")
    page.wait_for_selector("#events, .empty")
    state = context.storage_state()
    context.close()
    return state


@pytest.fixture
def page(server: Server, chromium: Browser, session_state: Any) -> Iterator[Page]:
    """A signed-in page. The test fails when the page logged an error, broke its own policy or opened a dialog."""
    context = chromium.new_context(storage_state=session_state, base_url=server.url, viewport={"width": 1440, "height": 900})
    context.add_init_script(
        "window.violations = []; addEventListener('securitypolicyviolation', e => violations.push(e.blockedURI + e.violatedDirective))"
    )
    opened = context.new_page()
    trouble: list[str] = []
    opened.on("pageerror", lambda error: trouble.append(f"script: {error}"))
    opened.on("console", lambda message: trouble.append(message.text) if message.type == "error" else None)
    opened.on("dialog", lambda dialog: (trouble.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    yield opened
    violations = opened.evaluate("window.violations")
    context.close()
    assert trouble == []
    assert violations == []
