"""The supervisor over real processes: small stand-ins for the roles, which tell through files what they do."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.server import free_port, wait_for

# Runs the real `Supervisor` in a process of its own, with a child command that plays a role by the script in the directory.
SUPERVISOR = """
import os, sys
from pathlib import Path
from tallystick.config import load_config
from tallystick.errors import ConfigError, LockedError
from tallystick.pipeline import supervisor
from tallystick.pipeline.context import open_installation
from tallystick.pipeline.reload import Reload
from tallystick.pipeline.snapshot import Snapshot

directory = Path(sys.argv[1])
supervisor._PAUSE_MIN_S = supervisor._PAUSE_MAX_S = 0.05
supervisor._GRACE_S = 60.0
start = supervisor.subprocess.Popen
supervisor.subprocess.Popen = lambda command, **options: start(
    [command[0], "-c", (directory / "role.py").read_text(), command[3], command[4], str(directory), command[-1],
     *command[5:-2]], **options
)

def read():
    text = (directory / "config").read_bytes() if (directory / "config").exists() else b""
    if text == b"bad":
        raise ConfigError("it is bad")
    listen = os.environ.get("LISTEN", "127.0.0.1:1")
    return text, load_config(None, {"data": {"dir": str(directory / "data")}, "server": {"listen": listen}}, text=text)

installation = open_installation(read()[1], create=True)
try:
    code = supervisor.Supervisor(
        installation,
        (),
        Reload(installation, Snapshot(b""), read),
        on_ready=lambda: (directory / "announced").write_text("x"),
        is_ready=lambda: (directory / "sealer").exists(),
        roles=os.environ.get("ROLES", "intake sealer").split(),
    ).run()
except LockedError:
    code = 3
except ConfigError:
    code = 2
sys.exit(code)
"""
ROLE = """
import os, signal, sys, time
from pathlib import Path
from tallystick.pipeline.process import die_with_parent
role, parent, directory = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
die_with_parent(parent)
def note(name):
    with (directory / name).open("a") as file:
        file.write(f"{role} {os.getpid()}\\n")
"""
WAIT = """
signal.signal(signal.SIGTERM, lambda *_: (note("stopped"), os._exit(0)))  # SystemExit may be raised where it is ignored: in a destructor, amid imports
from tallystick.pipeline.snapshot import read_snapshot  # before any signal: a reminder may interrupt a slow import
from tallystick.telemetry import publish_status
def take(*_):
    text = read_snapshot(int(sys.argv[4])).decode()
    with (directory / "taken").open("a") as file:
        file.write(f"{text} {os.getpid()}\\n")
    error = (directory / "error").read_text() if (directory / "error").exists() else ""
    publish_status(directory / "data", "config-intake", {"error": error})
signal.signal(signal.SIGHUP, take)
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
note(role)
while True:
    time.sleep(60)
"""


class Up:
    """One supervisor's process."""

    def __init__(self, directory: Path, role: str, **environment: str) -> None:
        self.directory = directory
        self.environment = environment
        (directory / "role.py").write_text(ROLE + role)
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", SUPERVISOR, str(self.directory)]
        return subprocess.Popen(command, stderr=subprocess.DEVNULL, env={**os.environ, **self.environment})

    def notes(self, name: str) -> list[tuple[str, int]]:
        """(role, pid) of each note under that name."""
        path = self.directory / name
        rows = path.read_text().splitlines() if path.exists() else []
        return [(row.split()[0], int(row.split()[1])) for row in rows]

    def status(self) -> Any:
        """What the supervisor publishes."""
        return json.loads((self.directory / "data" / "run" / "status-supervisor.json").read_text())

    def wait(self, name: str, count: int = 1) -> list[tuple[str, int]]:
        wait_for(lambda: len(self.notes(name)) >= count, f"{count} notes {name}", every_s=0.01)
        return self.notes(name)


@pytest.fixture
def ups(tmp_path: Path) -> Iterator[list[Up]]:
    made: list[Up] = []
    yield made
    for up in made:
        with contextlib.suppress(ProcessLookupError):
            up.process.kill()
        up.process.wait(10)


def test_roles_are_started_announced_and_stopped_in_order(tmp_path: Path, ups: list[Up]) -> None:
    """Ready is announced once; SIGTERM stops intake first, and the exit code is 0."""
    up = Up(tmp_path, WAIT)
    ups.append(up)
    up.wait("intake")
    up.wait("sealer")
    wait_for((tmp_path / "announced").exists, "the announcement", every_s=0.01)
    assert (tmp_path / "data" / "run" / "metrics").is_dir()
    up.process.terminate()
    assert up.process.wait(10) == 0
    assert [role for role, _ in up.notes("stopped")] == ["intake", "sealer"]


WORKERS = "worker-1 worker-2 intake sealer"
LISTEN = """
if role.startswith("worker"):
    import socket
    listener = socket.socket(fileno=int(sys.argv[6]))
    listener.listen()
    note(f"port-{listener.getsockname()[1]}")
"""


def test_workers_inherit_one_socket_and_stop_before_the_writer(tmp_path: Path, ups: list[Up]) -> None:
    """Each gets the same bound socket, also one that is started again; nobody else gets it; they stop first."""
    port = free_port()
    up = Up(tmp_path, LISTEN + WAIT, ROLES=WORKERS, LISTEN=f"127.0.0.1:{port}")
    ups.append(up)
    workers = dict(up.wait(f"port-{port}", 2))
    assert set(workers) == {"worker-1", "worker-2"}
    ((_, intake),) = up.wait("intake")
    inode = next(path.readlink() for path in descriptors(workers["worker-1"]) if path.name == str(listener_of(workers["worker-1"])))
    assert inode not in [path.readlink() for path in descriptors(intake)]
    up.wait("worker-2")  # it has said all that it says: two notes mean that it was started again
    os.kill(workers["worker-2"], signal.SIGKILL)
    assert [role for role, _ in up.wait(f"port-{port}", 3)][2] == "worker-2"
    up.wait("sealer")
    socket.create_connection(("127.0.0.1", port)).close()
    up.wait("worker-2", 2)
    up.process.terminate()
    assert up.process.wait(10) == 0
    stopped = [role for role, _ in up.notes("stopped")]
    assert (sorted(stopped[:2]), stopped[2:]) == (["worker-1", "worker-2"], ["intake", "sealer"])


def test_with_workers_a_port_in_use_is_refused_before_anything_is_started(tmp_path: Path, ups: list[Up]) -> None:
    """As without: exit code 2, and no role runs."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        up = Up(tmp_path, WAIT, ROLES=WORKERS, LISTEN=f"127.0.0.1:{other.getsockname()[1]}")
        ups.append(up)
        assert up.process.wait(20) == 2
    assert not up.notes("worker-1") + up.notes("intake")


def descriptors(pid: int) -> list[Path]:
    return [path for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()]


def listener_of(pid: int) -> int:
    """The descriptor that a worker was told of."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return int(words[words.index(b"--listener") + 1])


def test_a_new_configuration_is_taken_by_intake_and_starts_the_sealer_anew(tmp_path: Path, ups: list[Up]) -> None:
    """The intake takes it without ending; the sealer, which writes its hash into the root log, is ended and started at once."""
    up = Up(tmp_path, WAIT)
    ups.append(up)
    ((_, sealer),) = up.wait("sealer")
    wait_for((tmp_path / "announced").exists, "the announcement", every_s=0.01)
    (tmp_path / "config").write_bytes(b"new")
    up.process.send_signal(signal.SIGHUP)
    assert up.wait("taken")[0][0] == "new"
    assert [pid != sealer for _, pid in up.wait("sealer", 2)] == [False, True]
    assert len(up.notes("intake")) == 1
    assert up.status()["config"]["refused"] is None


def test_a_bad_configuration_reaches_nobody(tmp_path: Path, ups: list[Up]) -> None:
    """The reason is in the status page; no process hears of it, and one that dies starts again with the old one."""
    up = Up(tmp_path, WAIT)
    ups.append(up)
    ((_, sealer),) = up.wait("sealer")
    wait_for((tmp_path / "announced").exists, "the announcement", every_s=0.01)
    (tmp_path / "config").write_bytes(b"bad")
    up.process.send_signal(signal.SIGHUP)
    wait_for(lambda: up.status()["config"]["refused"], "the refusal", every_s=0.01)
    assert "it is bad" in up.status()["config"]["refused"]
    os.kill(sealer, signal.SIGKILL)
    up.wait("sealer", 2)
    assert up.notes("taken") == []


def test_a_configuration_that_intake_cannot_take_is_put_back(tmp_path: Path, ups: list[Up]) -> None:
    """The intake is told to look again, at the old one; nobody is started anew."""
    up = Up(tmp_path, WAIT)
    ups.append(up)
    up.wait("sealer")
    wait_for((tmp_path / "announced").exists, "the announcement", every_s=0.01)
    (tmp_path / "config").write_bytes(b"new")
    (tmp_path / "error").write_text("the port is taken")
    up.process.send_signal(signal.SIGHUP)
    lines = wait_for(
        lambda: (
            found
            if len(found := (tmp_path / "taken").read_text().splitlines() if (tmp_path / "taken").exists() else []) > 1
            else None
        ),
        "both",
    )
    assert [line.split(" ")[0] for line in lines] == ["new", ""]
    assert up.status()["config"]["refused"] == "the port is taken"
    assert len(up.notes("sealer")) == 1


def test_a_dead_role_is_started_again_and_the_others_go_on(tmp_path: Path, ups: list[Up]) -> None:
    """kill -9 of one role costs that role a restart, nobody else anything."""
    up = Up(tmp_path, WAIT)
    ups.append(up)
    ((_, first),) = up.wait("sealer")
    up.wait("intake")
    os.kill(first, signal.SIGKILL)
    assert [pid != first for _, pid in up.wait("sealer", 2)] == [False, True]
    assert len(up.notes("intake")) == 1


@pytest.mark.parametrize("code", [2, 3])
def test_a_role_that_asks_for_a_person_at_the_start_stops_everything(tmp_path: Path, ups: list[Up], code: int) -> None:
    """Exit 2 or 3 before it ever ran: the same code comes out, and no process stays."""
    up = Up(tmp_path, f'if role == "sealer":\n    sys.exit({code})\n{WAIT}')
    ups.append(up)
    assert up.process.wait(20) == code
    assert all(not Path(f"/proc/{pid}").exists() for _, pid in up.notes("intake"))


def test_a_configuration_broken_later_stops_nobody_else(tmp_path: Path, ups: list[Up]) -> None:
    """A role that ran and then, started again, ends with 2 is tried until the file is mended; acceptance goes on."""
    up = Up(tmp_path, f'if role == "sealer" and (directory / "broken").exists():\n    note("refused")\n    sys.exit(2)\n{WAIT}')
    ups.append(up)
    ((_, first),) = up.wait("sealer")
    (tmp_path / "broken").write_text("x")
    os.kill(first, signal.SIGKILL)
    up.wait("refused", 2)
    (tmp_path / "broken").unlink()
    up.wait("sealer", 2)
    assert up.process.poll() is None
    assert len(up.notes("intake")) == 1


def test_a_second_up_ends_with_3_and_leaves_the_first_alone(tmp_path: Path, ups: list[Up]) -> None:
    """The data directory has one supervisor; the second changes nothing in it."""
    up = Up(tmp_path, WAIT)
    ups.append(up)
    up.wait("intake")
    marker = tmp_path / "data" / "run" / "marker"
    marker.write_text("x")
    assert up.start().wait(20) == 3
    assert marker.exists()
    assert up.process.poll() is None


def test_children_die_with_a_killed_supervisor(tmp_path: Path, ups: list[Up]) -> None:
    """kill -9 of the supervisor leaves no process that holds a lock against the next start."""
    up = Up(tmp_path, WAIT)
    ups.append(up)
    pids = [pid for name in ("intake", "sealer") for _, pid in up.wait(name)]
    up.process.kill()
    up.process.wait(10)
    wait_for(lambda: not any(is_running(pid) for pid in pids), "the children to end", every_s=0.01)


def test_a_second_signal_kills_what_does_not_stop(tmp_path: Path, ups: list[Up]) -> None:
    """A role that ignores SIGTERM holds nobody up for longer than the grace period."""
    up = Up(tmp_path, 'signal.signal(signal.SIGTERM, lambda *_: note("asked"))\nnote(role)\nwhile True:\n    time.sleep(60)\n')
    ups.append(up)
    up.wait("intake")
    up.wait("sealer")
    up.process.terminate()
    up.wait("asked")
    up.process.terminate()
    assert up.process.wait(10) == 0


def is_running(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
