"""Takes the pictures in ``docs/pictures`` from a demo in a directory of its own. Run as ``python -m tools.screenshots``.

Needs the development environment and a Chromium (``CHROMIUM``, default /usr/bin/chromium). The story's times are relative to now,
so the pictures differ from run to run in their dates only.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlencode

import httpx
from playwright.sync_api import Browser, Page, sync_playwright

from tools.png import reduce_colours

PICTURES = Path(__file__).parent.parent / "docs" / "pictures"
SIZE = {"width": 1360, "height": 860}
BYTES_MAX = 200_000
_PATIENCE_S = 120.0
_QUERY = "NOT action:tallystick.*"
Scheme = Literal["light", "dark"]
SCHEMES: tuple[Scheme, ...] = ("light", "dark")


def main() -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="tallystick-pictures-") as directory, demo(Path(directory)) as (url, key):
        pages = list_pages(find_events(url, key))
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"),
                args=["--no-sandbox", "--disable-gpu", "--disable-lcd-text"],
            )
            for scheme in SCHEMES:
                for name, content in take(browser, url, key, scheme, pages):
                    path = PICTURES / f"{name}-{scheme}.png"
                    path.write_bytes(content)
                    print(f"{path.name}: {len(content):,} bytes")
                    if len(content) > BYTES_MAX:
                        sys.exit(f"{path} is larger than {BYTES_MAX:,} bytes")
            browser.close()


@contextmanager
def demo(directory: Path) -> Iterator[tuple[str, str]]:
    """A demo whose story is told, sealed and quoted by the root log: its address and its admin key."""
    alphabet = string.ascii_letters + string.digits
    key = "ts_pictures01_" + "".join(secrets.choice(alphabet) for _ in range(43))
    url = f"http://127.0.0.1:{free_port()}"
    environment = {**os.environ, "TALLYSTICK_ADMIN_KEY": key, "TALLYSTICK_LISTEN": url.removeprefix("http://")}
    for name in ("TALLYSTICK_CONFIG", "TALLYSTICK_DATA", "TALLYSTICK_KEYS"):
        environment.pop(name, None)
    with (directory / "server.log").open("wb") as log:
        command = [sys.executable, "-c", "from tallystick.cli.main import run; run()", "up", "--demo"]
        process = subprocess.Popen(command, cwd=directory, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        wait_for(lambda: process.poll() is not None or is_told(directory, url, key), "the story to be told and sealed")
        if process.poll() is not None:
            sys.exit(f"the demo ended:\n{(directory / 'server.log').read_text()}")
        yield url, key
    finally:
        process.terminate()
        process.wait(30)


def is_told(directory: Path, url: str, key: str) -> bool:
    """The whole story is accepted, sealed, delivered, archived, and its last head is in the root log."""
    story = directory / "demo-data" / "story"
    if not story.exists() or not json.loads(story.read_bytes())["is_told"]:
        return False
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=30) as client:
        status = client.get("/v1/status").json()
        row = status["tenants"]["northwind"]
        if row["archived"] < row["accepted"] or any(found["pending"] for found in status["destinations"].values()):
            return False
        (last,) = client.get("/v1/events", params={"tenant": "northwind", "query": _QUERY, "limit": 1}).json()["events"]
        proof = client.get(f"/v1/events/{last['id']}/proof", params={"tenant": "northwind", "chain": "true"})
        return proof.status_code == 200


def find_events(url: str, key: str) -> dict[str, str]:
    """The ids of the events that are opened, by what they show."""
    found = {}
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=30) as client:
        for name, query in (("changes", "action:audit.settings.update"), ("export", "action:customer.export outcome:denied")):
            answer = client.get("/v1/events", params={"tenant": "northwind", "query": query, "limit": 1})
            found[name] = answer.raise_for_status().json()["events"][0]["id"]
    return found


def list_pages(events: dict[str, str]) -> list[tuple[str, str, str]]:
    """(picture, path, what must be on the page) of every picture."""
    story = {"tenant": "northwind", "from": "-7d"}
    stranger = {**story, "q": "ip:203.0.113.77"}
    return [
        ("events", f"/?{urlencode({**story, 'q': _QUERY})}", "#events"),
        ("event-panel", f"/?{urlencode({**stranger, 'open': events['changes'], 'tab': 'changes'})}", "#panel ins"),
        ("event-proof", f"/?{urlencode({**story, 'q': 'action:customer.export', 'open': events['export'], 'tab': 'proof'})}",
         "#panel .verdict.good"),
        ("overview", f"/overview?{urlencode(story)}", "section.wide svg"),
        ("actor", f"/actor?{urlencode({**story, 'id': 'u_204'})}", "section.wide svg"),
        ("delivery", "/delivery", "table"),
        ("retention", "/retention", "#classes"),
        ("integrity", "/integrity", "pre.command"),
        ("status", "/status", "table"),
    ]  # fmt: skip


def take(browser: Browser, url: str, key: str, scheme: Scheme, pages: list[tuple[str, str, str]]) -> Iterator[tuple[str, bytes]]:
    """(name, PNG) of each page in one colour scheme, signed in as a person would be."""
    context = browser.new_context(base_url=url, viewport=SIZE, color_scheme=scheme, timezone_id="UTC", locale="en-GB")
    page = context.new_page()
    page.goto("/login")
    page.fill("input[name=key]", key)
    page.click("form button")
    page.wait_for_selector("nav.tabs")
    for name, path, selector in pages:
        page.goto(path)
        page.wait_for_selector(selector)
        settle(page)
        yield name, reduce_colours(page.screenshot())
    context.close()


def settle(page: Page) -> None:
    """Nothing is under the pointer, and no request is under way."""
    page.mouse.move(0, 0)
    page.wait_for_load_state("networkidle")


def wait_for(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            if condition():
                return
        except (httpx.TransportError, KeyError):
            pass  # not up yet
        if time.monotonic() > deadline:
            sys.exit(f"waited {_PATIENCE_S:.0f} s for {what}")
        time.sleep(0.25)


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


if __name__ == "__main__":
    main()
