"""The source `file` on a real server: killed again and again while logrotate moves, compresses and truncates what it reads."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
import threading
import time
import tomllib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from support.server import Server, wait_for

DOC = Path(__file__).parents[2] / "docs" / "sources" / "file.md"
LOGROTATE = shutil.which("logrotate", path="/usr/sbin:/usr/bin:/sbin:/bin")
CONFIGURATION = """
[seal]
interval = "50ms"
root_interval = "500ms"
[sources.app]
type = "file"
paths = ["logs/app.log"]
poll = "50ms"
rotate_wait = "1s"
[destinations.disk]
type = "file"
path = "out.jsonl"
"""


class Writer(threading.Thread):
    """Appends numbered lines, without ids, and reopens the file when its name has another inode, as programs do. ``pause`` holds it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path, self.count, self.pause, self.stopped = path, 0, threading.Lock(), threading.Event()

    def run(self) -> None:
        chance = random.Random(7)
        while not self.stopped.is_set():
            with self.pause, self.path.open("a") as file:
                for _ in range(chance.randint(1, 200)):
                    file.write(
                        json.dumps({"action": "file.line", "actor": "u_1", "n": self.count, "pad": "x" * chance.randint(0, 200)})
                        + "\n"
                    )
                    self.count += 1
            self.stopped.wait(0.1)


@pytest.mark.skipif(LOGROTATE is None, reason="logrotate is not installed (tools/install-test-parts)")
@pytest.mark.parametrize("way", ["create\ncompress", "create\ncompress\ndelaycompress", "copytruncate", "copytruncate\ncompress"])
def test_killed_while_files_rotate(make_server: Callable[[str], Server], tmp_path: Path, way: str) -> None:
    """Five rotations and five kills: each line that was written is one event, in export and destination; verify passes."""
    server = make_server(CONFIGURATION)
    logs = server.directory / "logs"
    logs.mkdir(mode=0o755)
    rules = tmp_path / "rotate.conf"
    rules.write_text(f"{logs}/app.log {{\nsu root root\nrotate 50\nsize 1\n{way}\n}}\n")
    rules.chmod(0o644)
    server.start()
    writer = Writer(logs / "app.log")
    writer.start()
    chance = random.Random(way)
    try:
        for turn in range(5):
            time.sleep(chance.uniform(0.2, 0.6))
            if turn % 2:
                server.kill()
            with writer.pause:
                subprocess.run([str(LOGROTATE), "-f", "-s", tmp_path / "state", rules], check=True, capture_output=True)
            if not turn % 2:
                time.sleep(chance.uniform(0.0, 0.3))
                server.kill()
            server.start()
    finally:
        writer.stopped.set()
        writer.join()
    assert writer.count > 500

    def is_all_there() -> bool:
        return bool(server.status()["tenants"].get("default", {}).get("accepted", 0) >= writer.count)

    wait_for(is_all_there, f"{writer.count} lines; status {server.status()}", 60)
    # Events of the server itself are delivered too, so a count of deliveries would say too early that all is there.
    wait_for(lambda: len(_delivered(server)) >= writer.count, f"{writer.count} lines at the destination", 60)
    numbers = Counter(event["metadata"]["n"] for event in _delivered(server))
    exported = Counter(
        json.loads(line)["metadata"]["n"]
        for line in server.http.get("/v1/export", params={"query": "action:file.line"}).iter_lines()
    )
    written = Counter(range(writer.count))
    for place, held in (("destination", numbers), ("export", exported)):
        missing, repeated = written - held, held - written
        assert (sum(missing.values()), sum(repeated.values())) == (0, 0), (
            f"{place}: {min(missing, default=None)}, {min(repeated, default=None)}"
        )
    assert server.status()["sources"]["app"]["reason"] == ""
    server.stop()
    server.verify()


def test_the_page_s_configuration_runs(make_server: Callable[[str], Server], tmp_path: Path) -> None:
    """The examples of the docs page, with other paths: JSON lines, a stack trace and audit records of a real format arrive."""
    configuration = "\n".join(re.findall(r"```toml\n(.*?)```", DOC.read_text("utf-8"), re.DOTALL))
    assert set(tomllib.loads(configuration)["sources"]) == {"app", "java", "auditd"}
    server = make_server(configuration.replace("/var/log", str(tmp_path)))
    for name, text in {
        "app/web.log": '{"action":"user.login","actor":"u_1"}\nplain text\n',
        "java/app.log": "2026-01-01 ERROR x\n  at y\n2026-01-01 INFO z\n",
        "audit/audit.log": "type=SYSCALL msg=audit(1700000000.1:7): syscall=59\ntype=EOE msg=audit(1700000000.1:7): \n",
    }.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    server.start()

    def found() -> dict[str, list[str]]:
        rows: dict[str, list[str]] = {}
        for line in server.http.get("/v1/export", params={"query": "NOT action:tallystick.*"}).iter_lines():
            event = json.loads(line)
            rows.setdefault(event["source"]["name"], []).append(event["raw"])
        return rows

    wait_for(lambda: sum(map(len, found().values())) == 5, f"five events, not {found()}")
    rows = found()
    assert rows["java"] == ["2026-01-01 ERROR x\n  at y", "2026-01-01 INFO z"]
    assert rows["auditd"][0].count("\n") == 1
    page = server.status()["sources"]
    assert page["app"]["files"] == 1
    assert page["app"]["unread_bytes"] == 0


def _delivered(server: Server) -> list[dict[str, object]]:
    return [
        event
        for line in (server.directory / "out.jsonl").read_bytes().splitlines()
        if (event := json.loads(line))["action"] == "file.line"
    ]
