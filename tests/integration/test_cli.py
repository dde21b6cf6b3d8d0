"""Every verb of the command line against a running server: what it prints, piped and at a terminal, and its exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner

from support.server import ADMIN_KEY, Server, free_port, wait_for
from support.target import Target, event, event_text, run_target
from support.terminal import run_in_terminal
from support.webhook_receiver import SECRET, WebhookReceiver, run_webhook_receiver
from tallystick.cli.main import app

CONFIGURATION = """
[seal]
interval = "50ms"
root_interval = "200ms"
[sources.github]
type = "http"
mapping = "github_audit"
tenant = "default"
[destinations.disk]
type = "file"
path = "out.jsonl"
[destinations.hook]
type = "webhook"
url = "{url}"
secret = "{secret}"
allow_private = true
[delivery]
retry_min = "100ms"
"""


@pytest.fixture(scope="module")
def receiver() -> Iterator[WebhookReceiver]:
    with run_webhook_receiver() as running:
        running.dial(refuse_id="refused")
        yield running


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory, receiver: WebhookReceiver) -> Iterator[Target]:
    with run_target(tmp_path_factory.mktemp("cli"), CONFIGURATION.format(url=receiver.url, secret=SECRET)) as running:
        yield running


@pytest.fixture
def server(target: Target) -> Server:
    return target.server


@contextmanager
def running(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A verb that goes on until it is told to end; it is gone when the block is left, whatever happened in it."""
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def rows(done: subprocess.CompletedProcess[str]) -> list[Any]:
    """Piped output: one JSON document a line."""
    return [json.loads(line) for line in done.stdout.splitlines()]


def fails(server: Server, code: int, words: str, *arguments: str, **environment: str) -> str:
    """The verb ends with ``code`` and one line on stderr that has ``words``; nothing on stdout, no traceback."""
    done = server.cli(*arguments, check=code, **environment)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert words.lower() in done.stderr.lower(), done.stderr
    return done.stderr


# --- events


def test_send_from_a_file_and_from_standard_input(server: Server, tmp_path: Path) -> None:
    """Totals come as JSON when piped, as words at a terminal; a second sending is all duplicates."""
    events = tmp_path / "events.ndjson"
    events.write_bytes(b"\n".join(event_text() for _ in range(2_500)) + b"\n")
    assert rows(server.cli("send", str(events))) == [{"accepted": 2_500, "duplicates": 0, "filtered": 0, "quarantined": 0}]
    assert "2,500 duplicates" in run_in_terminal(server, "send", str(events))
    environment = {**os.environ, "TALLYSTICK_URL": server.url, "TALLYSTICK_KEY": ADMIN_KEY}
    command = [sys.executable, "-c", "from tallystick.cli.main import run; run()", "send", "--json"]
    done = subprocess.run(command, input=event_text(), env=environment, capture_output=True, check=True)
    assert json.loads(done.stdout)["accepted"] == 1


def test_send_of_bad_events(server: Server, tmp_path: Path) -> None:
    """Exit 1 with line, pointer and reason; with quarantine they are kept aside and counted."""
    events = tmp_path / "events.ndjson"
    events.write_bytes(event_text() + b'\n{"action":"a b","actor":"u"}\n')
    fails(server, 1, "line 2, /action", "send", str(events))
    assert rows(server.cli("send", str(events), "--on-invalid", "quarantine"))[0]["quarantined"] == 1
    fails(server, 1, "source", "send", str(events), "--source", "nowhere")


def test_send_of_a_file_that_is_not_there(server: Server, tmp_path: Path) -> None:
    """Exit 1 with the file's name, no traceback; so it is with a file that cannot be written."""
    fails(server, 1, str(tmp_path / "absent"), "send", str(tmp_path / "absent"))
    fails(server, 1, str(tmp_path / "no" / "out"), "export", "-o", str(tmp_path / "no" / "out"))


def test_send_to_a_source(server: Server, tmp_path: Path) -> None:
    """Records of a product go through their mapping."""
    record = {"action": "repo.create", "actor": "octocat", "org": "acme", "@timestamp": 1_700_000_000_000, "_document_id": "gh-1"}
    file = tmp_path / "audit.json"
    file.write_text(json.dumps(record) + "\n" + '{"nothing":"known"}\n')
    assert rows(server.cli("send", "--source", "github", str(file))) == [
        {"accepted": 1, "duplicates": 0, "filtered": 0, "quarantined": 1}
    ]


def test_search(server: Server, target: Target) -> None:
    """Whole events as JSON lines when piped; a table at a terminal; nothing found is said, and is no failure."""
    sent = event(actor={"type": "user", "id": "u_search", "name": "Ada"}, targets=[{"type": "invoice", "id": "i_5"}])
    target.accept(json.dumps(sent).encode())
    assert [row["id"] for row in rows(server.cli("search", "actor.id:u_search"))] == [sent["id"]]
    assert [row["id"] for row in rows(server.cli("search", "actor.id:u_search", "--last", "1h", "--tenant", "default"))] == [
        sent["id"]
    ]
    shown = run_in_terminal(server, "search", "actor.id:u_search")
    assert "Ada" in shown
    assert "invoice i_5" in shown
    assert server.cli("search", "actor.id:nobody").stdout == ""
    assert "Nothing matches" in run_in_terminal(server, "search", "actor.id:nobody")
    assert len(rows(server.cli("search", "NOT action:tallystick.*", "--limit", "3", "--order", "asc"))) == 3


def test_search_with_mistakes(server: Server) -> None:
    """Exit 1 with the place in the query, the parameter or the tenant."""
    fails(server, 1, "column", "search", "action:(")
    fails(server, 1, "from", "search", "a", "--last", "yesterday")
    fails(server, 1, "no such tenant", "search", "a", "--tenant", "nobody")


def test_tail(server: Server, target: Target) -> None:
    """Events appear as they are accepted, one a line; Ctrl-C ends it without a traceback."""
    environment = {**os.environ, "TALLYSTICK_URL": server.url, "TALLYSTICK_KEY": ADMIN_KEY}
    # Whoever runs the tests in the background has them ignore Ctrl-C, and their children with them: a terminal's child does not.
    attended = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    command = [sys.executable, "-c", attended + "from tallystick.cli.main import run; run()", "tail", "action:tail.me"]
    target.accept(event_text())  # a tail is on record in the tenants that there are
    with running(command, environment) as process:
        is_listening = "action:tallystick.tail"
        wait_for(lambda: server.http.get("/v1/events", params={"query": is_listening}).json()["events"], "the tail to be on record")
        assert process.stdout is not None
        assert process.stderr is not None
        target.accept(b"\n".join(event_text(action="tail.me", reason=str(number)) for number in range(3)))
        got = [json.loads(process.stdout.readline()) for _ in range(3)]
        assert [row["reason"] for row in got] == ["0", "1", "2"]
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert "Traceback" not in process.stderr.read()
    fails(server, 1, "column", "tail", "action:(")


def test_explain(server: Server, target: Target) -> None:
    """Place, seal, and for each destination the outcome; an unknown id is exit 1."""
    sent = event()
    target.accept(json.dumps(sent).encode())
    server.drain(1, destinations=("disk", "hook"))
    document = rows(server.cli("explain", sent["id"]))[0]
    assert document["sealed"] is True
    assert {name: entry["outcome"] for name, entry in document["destinations"].items()} == {
        "disk": "delivered",
        "hook": "delivered",
    }
    shown = run_in_terminal(server, "explain", sent["id"])
    assert "disk" in shown
    assert "delivered" in shown
    fails(server, 1, "no such event", "explain", "nothing")


def test_export(server: Server, target: Target, tmp_path: Path) -> None:
    """Leaves byte for byte on standard output or into a file; CSV and Parquet; an unknown format is refused."""
    sent = event(action="export.me")
    target.accept(json.dumps(sent).encode())
    line = server.http.get(f"/v1/events/{sent['id']}").text
    assert server.cli("export", "action:export.me").stdout == line + "\n"
    server.cli("export", "action:export.me", "--last", "1h", "-o", str(tmp_path / "out.jsonl"))
    assert (tmp_path / "out.jsonl").read_text() == line + "\n"
    assert sent["id"] in server.cli("export", "action:export.me", "--format", "csv").stdout
    server.cli("export", "action:export.me", "--format", "parquet", "-o", str(tmp_path / "out.parquet"))
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 1
    done = server.cli("export", "--format", "xlsx", check=None)
    assert done.returncode in (1, 2)
    assert "xlsx" in done.stderr or "format" in done.stderr


# --- operation


def test_status(server: Server) -> None:
    """The page as JSON, and as words and tables at a terminal."""
    page = rows(server.cli("status"))[0]
    assert page["ready"] is True
    assert set(page["destinations"]) == {"disk", "hook"}
    shown = run_in_terminal(server, "status")
    assert "ready     yes" in shown
    assert "hook" in shown


def test_keys(server: Server) -> None:
    """Made with the secret shown once, listed without it, revoked; mistakes are exit 1."""
    made = rows(
        server.cli("keys", "create", "--owner", "payments", "-p", "ingest", "-p", "read", "-t", "default", "--purpose", "test")
    )[0]
    assert made["permissions"] == ["ingest", "read"]
    assert rows(server.cli("search", "action:export.me", TALLYSTICK_KEY=made["secret"])) is not None
    listed = {row["id"]: row for row in rows(server.cli("keys", "list"))}
    assert listed[made["id"]]["owner"] == "payments"
    assert made["secret"] not in server.cli("keys", "list").stdout
    shown = run_in_terminal(server, "keys", "create", "--owner", "x", "-p", "ingest")
    assert "not shown again" in shown
    assert "ts_" in shown
    server.cli("keys", "revoke", made["id"])
    fails(server, 1, "key_invalid", "search", "a", TALLYSTICK_KEY=made["secret"])
    fails(server, 1, "permission", "keys", "create", "--owner", "x", "-p", "everything")
    fails(server, 1, "no such key", "keys", "revoke", "nothing")


def test_tenants(server: Server) -> None:
    """Made once, listed with their handles; twice and malformed are exit 1."""
    made = rows(server.cli("tenants", "create", "acme"))[0]
    assert made["handle"] in {row["handle"] for row in rows(server.cli("tenants", "list"))}
    assert "acme" in run_in_terminal(server, "tenants", "list")
    fails(server, 1, "exists", "tenants", "create", "acme")
    fails(server, 1, "name", "tenants", "create", "A/B")


def test_destinations(server: Server, target: Target) -> None:
    """Listed, paused, resumed, probed, replayed."""
    target.accept(event_text())
    server.drain(1, destinations=("disk", "hook"))
    server.cli("destinations", "pause", "disk")
    paused = {row["name"]: row["state"] for row in rows(server.cli("destinations", "list"))}
    wait_for(lambda: server.status()["destinations"]["disk"]["state"] == "paused", f"the pause to show; {paused}")
    server.cli("destinations", "resume", "disk")
    wait_for(lambda: server.status()["destinations"]["disk"]["state"] == "running", "the destination to go on")
    assert rows(server.cli("destinations", "probe", "hook"))[0]["done"] == "probe"
    server.cli("destinations", "replay", "hook", "--tenant", "default", "--from", "0", "--to", "0")
    assert "hook" in run_in_terminal(server, "destinations", "list")
    fails(server, 1, "no such destination", "destinations", "pause", "nothing")
    fails(server, 1, "range", "destinations", "replay", "hook", "--tenant", "default", "--from", "5", "--to", "1")


def test_dead_letters(server: Server, target: Target, receiver: WebhookReceiver) -> None:
    """Listed with the reason, shown with event and reply, discarded with a reason, replayed once the other side takes them."""
    target.accept(json.dumps(event(id="refused")).encode())
    letters = wait_for(lambda: rows(server.cli("dead-letters", "list", "--destination", "hook")), "the dead letter", every_s=0.5)
    letter = next(row for row in letters if row["event_id"] == "refused")
    shown = json.loads(server.cli("dead-letters", "show", letter["id"]).stdout)
    assert shown["event"]["id"] == "refused"
    assert "not for me" in shown["reply"]
    receiver.dial()
    server.cli("dead-letters", "replay", letter["id"])
    wait_for(lambda: "refused" in receiver.ids(), "the replay to arrive")
    fails(server, 1, "already", "dead-letters", "discard", letter["id"], "--reason", "too late")
    fails(server, 1, "no such dead letter", "dead-letters", "show", "hook:999999")
    fails(server, 2, "reason", "dead-letters", "discard", letter["id"])


def test_quarantine(server: Server, target: Target) -> None:
    """Listed, shown as it came, tried again."""
    target.post(b'{"actor":"only"}', on_invalid="quarantine")
    found = wait_for(lambda: rows(server.cli("quarantine", "list", "--source", "events")), "the record", every_s=0.5)[-1]
    assert found["code"] == "field_missing"
    assert json.loads(server.cli("quarantine", "show", str(found["id"])).stdout)["data"] == '{"actor":"only"}'
    assert "field_missing" in run_in_terminal(server, "quarantine", "list")
    fails(server, 1, "", "quarantine", "replay", str(found["id"]))
    fails(server, 1, "no such", "quarantine", "show", "99999999")


# --- the way to the server


def test_without_a_key(server: Server) -> None:
    """Usage: exit 2 and what to set."""
    fails(server, 2, "TALLYSTICK_KEY", "status", TALLYSTICK_KEY="")


def test_with_a_wrong_key(server: Server) -> None:
    """Exit 1 with the server's word, and the key is not repeated."""
    wrong = "ts_testadmin01_" + "0" * 43
    assert wrong not in fails(server, 1, "key_invalid", "status", TALLYSTICK_KEY=wrong)


def test_a_server_that_is_not_there(server: Server) -> None:
    """Exit 1 with the address and a hint, within a time that a person waits."""
    url = f"http://127.0.0.1:{free_port()}"
    assert url in fails(server, 1, "is the server up", "status", TALLYSTICK_URL=url)


@pytest.mark.parametrize(
    "arguments", [("frobnicate",), ("explain",), ("search", "--nope"), ("keys", "frob"), ("search", "--limit", "x")]
)
def test_usage_errors(server: Server, arguments: tuple[str, ...]) -> None:
    """Exit 2, on stderr."""
    done = server.cli(*arguments, check=2)
    assert done.stdout == ""
    assert done.stderr


def test_help_of_every_verb() -> None:
    """`--help` works for each verb and each verb of a group."""
    root = typer.main.get_command(app)
    assert isinstance(root, typer.core.TyperGroup)
    paths = [
        [name, *([verb] if verb else [])]
        for name, command in root.commands.items()
        for verb in getattr(command, "commands", {"": None})
    ]
    assert len(paths) > 20
    for path in paths:
        shown = CliRunner().invoke(app, [*path, "--help"])
        assert shown.exit_code == 0, path
        assert f"{' '.join(path)} " in shown.stdout


def test_output_into_a_closed_pipe(server: Server) -> None:
    """`tallystick export | head -1` ends quietly."""
    environment = {**os.environ, "TALLYSTICK_URL": server.url, "TALLYSTICK_KEY": ADMIN_KEY}
    command = f"{sys.executable} -c 'from tallystick.cli.main import run; run()' export | head -1"
    done = subprocess.run(command, shell=True, env=environment, capture_output=True, text=True, timeout=60)
    assert len(done.stdout.splitlines()) == 1
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
