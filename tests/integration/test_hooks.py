"""Signed hooks on a real server: the shell and Python clients of the docs, and the Standard Webhooks library."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook

from support.ledger import OURS
from support.server import ADMIN_KEY, Server, wait_for

PAGE = (Path(__file__).parents[2] / "docs/sources/hooks.md").read_text("utf-8")
BLOCKS = dict(re.findall(r"```(toml|sh|python)\n(.*?)```", PAGE, re.DOTALL))
SECRETS = {
    "GITHUB_HOOK_SECRET": "github-secret-of-the-tests",
    "SLACK_SIGNING_SECRET": "slack-secret-of-the-tests",
    "OKTA_HOOK_TEXT": "okta-text-of-the-tests",
    "SHOP_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "SHOP_SECRET_BEFORE": "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
    "BILLING_SECRET": "billing-secret-of-the-tests",
}


@pytest.fixture
def server(make_server: Callable[[str], Server]) -> Server:
    """A server with the sources of the docs, and their secrets in its environment."""
    made = make_server(BLOCKS["toml"])
    made.environment.update(SECRETS)
    return made.start()


def events(server: Server) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = server.http.get("/v1/events", params={"query": OURS, "order": "asc", "tenant": "acme"}).json()[
        "events"
    ]
    return found


@pytest.mark.parametrize(("language", "action"), [("sh", "issues.opened"), ("python", "invoice.approve")])
def test_the_clients_of_the_docs_run(server: Server, tmp_path: Path, language: str, action: str) -> None:
    """As they stand there, each in a process of its own: one event, without a key of ours anywhere."""
    script = tmp_path / "client"
    script.write_text(BLOCKS[language])
    environment = {**os.environ, **SECRETS, "TALLYSTICK_URL": server.url}
    command = ["sh" if language == "sh" else sys.executable, str(script)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["accepted"] == 1
    (event,) = events(server)
    assert (event["action"], event["actor"]["id"], "credential" in event["source"]) == (action, "u_17", False)


def post(server: Server, secret: str, message: str, moment: datetime, body: str) -> httpx.Response:
    """One delivery, signed by the library."""
    headers = {
        "content-type": "application/json",
        "webhook-id": message,
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": Webhook(secret).sign(message, moment, body),
    }
    return httpx.post(f"{server.url}/v1/in/shop", content=body, headers=headers)


def test_the_library_signs_and_we_check(server: Server) -> None:
    """With either secret of a rotation; a repeat is a duplicate, also after kill -9; an old one, and one under an unknown secret, is refused."""
    now = datetime.now(UTC)
    assert post(server, SECRETS["SHOP_SECRET"], "msg_1", now, '{"user":"a"}').json()["accepted"] == 1
    assert post(server, SECRETS["SHOP_SECRET_BEFORE"], "msg_2", now, '{"user":"a"}').json()["accepted"] == 1
    server.kill()
    server.start()
    again = post(server, SECRETS["SHOP_SECRET"], "msg_1", now + timedelta(seconds=2), '{"user":"a"}').json()
    assert (again["accepted"], again["duplicates"]) == (0, 1)
    stale = post(server, SECRETS["SHOP_SECRET"], "msg_3", now - timedelta(minutes=6), '{"user":"a"}')
    assert (stale.status_code, stale.json()["code"]) == (401, "signature_stale")
    unknown = post(server, "whsec_" + "A" * 32, "msg_3", now, '{"user":"a"}')
    assert (unknown.status_code, unknown.json()["code"]) == (401, "signature_invalid")
    assert [event["id"] for event in events(server)] == ["shop:msg_1", "shop:msg_2"]


def test_our_own_destination_is_a_sender(make_server: Callable[[str], Server]) -> None:
    """Two servers: what one delivers by `webhook` the other takes as a signed hook, event by event."""
    receiver = make_server(BLOCKS["toml"])
    receiver.environment.update(SECRETS)
    receiver.start()
    sender = make_server(
        f'[seal]\ninterval = "50ms"\n[destinations.hook]\ntype = "webhook"\nurl = "{receiver.url}/v1/in/shop"\n'
        'secret = { env = "SHOP_SECRET" }\nallow_private = true\nwhere = "action:user.login"\n'
    )
    sender.environment.update(SECRETS)
    sender.start()
    sender.send_ok(b'{"action":"user.login","actor":"u_1"}')
    wait_for(lambda: receiver.status()["tenants"].get("acme", {}).get("accepted"), "the delivery")
    (event,) = events(receiver)
    assert '"action":"user.login"' in event["raw"]


def test_the_secrets_are_nowhere(server: Server) -> None:
    """Neither in status, limits or log, nor in what is told of a wrong signature."""
    refused = post(server, "whsec_" + "B" * 32, "msg_9", datetime.now(UTC), "{}")
    pages = [refused.text, server.http.get("/v1/status").text, server.http.get("/v1/limits").text, server.tail(100_000)]
    assert not [secret for secret in SECRETS.values() if any(secret in page for page in pages)]
    assert ADMIN_KEY not in refused.text
