"""The examples are accepted and work (`examples/client.py` runs in `test_package.py`)."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from support.server import ADMIN_KEY, Server
from tallystick.cli.main import app

EXAMPLES = Path(__file__).parents[2] / "examples"
SERVICE = (EXAMPLES.parent / "deploy/tallystick.service").read_text("utf-8")


def test_check_accepts_the_example(monkeypatch: pytest.MonkeyPatch) -> None:
    """`tallystick check examples/tallystick.toml` passes and names every source and destination in it."""
    monkeypatch.setenv("HOOK_SECRET", "a-secret-of-at-least-16-bytes")
    done = CliRunner().invoke(app, ["check", str(EXAMPLES / "tallystick.toml")])
    assert done.exit_code == 0, done.output
    for name in re.findall(r"^\[(?:sources|destinations)\.(\w+)\]", (EXAMPLES / "tallystick.toml").read_text(), re.MULTILINE):
        assert name in done.output


def test_check_misses_the_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the variable that the example names it is refused, and the variable is named."""
    monkeypatch.delenv("HOOK_SECRET", raising=False)
    done = CliRunner().invoke(app, ["check", str(EXAMPLES / "tallystick.toml")])
    assert "HOOK_SECRET is not set" in str(done.exception)


def test_what_fluent_bit_posts_becomes_events(make_server: Callable[[str], Server]) -> None:
    """Records in the form and at the place that the Fluent Bit example configures are stored as events of the tenant."""
    outputs = (EXAMPLES / "fluent-bit.yaml").read_text("utf-8").partition("outputs:")[2]
    setting = dict(re.findall(r"^\s+-?\s*(\w+): (.*)$", outputs, re.MULTILINE))
    source = re.search(r"^\[sources\.fluentbit\].*?\n\n", (EXAMPLES / "tallystick.toml").read_text(), re.DOTALL | re.MULTILINE)
    assert source is not None
    assert (setting["format"], setting["compress"]) == ("json", "gzip")
    server = make_server(source[0]).start()
    records = [
        {setting["json_date_key"]: "2026-03-16T16:52:00.418000Z", "action": "user.login", "user": "u_17", "status": "success"},
        {setting["json_date_key"]: "2026-03-16T16:53:00.418000Z", "log": "session closed", "host": "web-1"},
    ]
    header, _, value = setting["header"].partition(" ")
    answer = httpx.post(
        server.url + setting["uri"],
        content=gzip.compress(json.dumps(records).encode()),
        headers={
            header: value.replace("${TALLYSTICK_KEY}", ADMIN_KEY),
            "Content-Type": "application/json",
            "Content-Encoding": setting["compress"],
        },
    )
    assert answer.status_code == 200, answer.text
    assert (answer.json()["accepted"], answer.json()["quarantined"]) == (2, [])
    events = server.http.get("/v1/events", params={"tenant": "acme", "query": "NOT action:tallystick.*", "order": "asc"}).json()[
        "events"
    ]
    assert [(event["action"], event["actor"]["id"], event["occurred_at"][:19]) for event in events] == [
        ("user.login", "u_17", "2026-03-16T16:52:00"),
        ("fluentbit.record", "web-1", "2026-03-16T16:53:00"),
    ]


@pytest.mark.parametrize(
    "line", ["NoNewPrivileges=yes", "ProtectSystem=strict", "CapabilityBoundingSet=", "ProtectHome=yes", "UMask=0077"]
)
def test_the_unit_is_hardened(line: str) -> None:
    """No capabilities, a read-only system, nothing of anybody else's."""
    assert line in SERVICE.split("\n")


def test_the_unit_does_not_restart_what_asks_for_a_person() -> None:
    """Exit codes 2 and 3 stay down; data and keys are two directories."""
    assert "RestartPreventExitStatus=2 3" in SERVICE
    data, keys = re.search(r"--data (\S+) --keys (\S+)", SERVICE).groups()  # type: ignore[union-attr]
    assert not Path(keys).is_relative_to(Path(data).parent)
