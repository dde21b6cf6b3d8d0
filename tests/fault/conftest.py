"""Servers for fault suites, the transcript of their results, and the check that none of them leaves anything behind."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from support.ledger import CONFIGURATION
from support.server import Server

TRANSCRIPT = "TALLYSTICK_FAULTS_TRANSCRIPT"
KILL_TABLE = "TALLYSTICK_KILL_TABLE"
_COLUMNS = ("fault", "rounds", "seen", "result", "run on", "test")
_rows: dict[str, dict[str, str]] = {}
_cells: dict[tuple[str, str], str] = {}


class MakeServer:
    """Makes servers with the ledger's destination; a stand-in in ``environment`` breaks them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._made: list[Server] = []

    def __call__(
        self,
        configuration: str = "",
        *,
        environment: dict[str, str] | None = None,
        directory: Path | None = None,
        workers: int = 1,
    ) -> Server:
        directory = directory or self._directory / f"server-{len(self._made)}"
        directory.mkdir(exist_ok=True)
        server = f"workers = {workers}\n" if workers > 1 else ""
        self._made.append(Server(directory, server + CONFIGURATION + configuration, environment=environment))
        return self._made[-1]

    def end(self) -> None:
        """Kill what still runs, stopped processes too."""
        for server in self._made:
            if server.process is not None and server.process.poll() is None:
                server.kill()
            server.http.close()
        self._made.clear()


@pytest.fixture
def fault_server(tmp_path: Path) -> Iterator[MakeServer]:
    """All are ended with the test."""
    made = MakeServer(tmp_path)
    yield made
    made.end()


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Callable[[str, int, str], None]:
    """``note(fault, rounds, seen)`` puts a row into the transcript; the result is added when the test ends."""
    row: dict[str, str] = {}

    def add(fault: str, rounds: int, seen: str) -> None:
        row.update(fault=fault, rounds=str(rounds), seen=seen)
        _rows[request.node.nodeid] = row

    return add


@pytest.fixture
def cells() -> Callable[[list[tuple[str, str, str]]], None]:
    """``cells(rows)`` prints (source, kill point, result) and puts them into the table of kills."""

    def add(rows: list[tuple[str, str, str]]) -> None:
        print("\n".join(f"| {source} | {point} | {result} |" for source, point, result in rows))
        _cells.update({(source, point): result for source, point, result in rows})

    return add


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Passed, failed or skipped, for the transcript."""
    outcome: Any = yield
    report = outcome.get_result()
    if report.when == "call" or (report.when == "setup" and not report.passed):
        row = _rows.setdefault(item.nodeid, {"fault": (item.function.__doc__ or item.name).strip(), "rounds": "", "seen": ""})  # type: ignore[attr-defined]
        row["result"] = "not run: " + str(report.longrepr[2]) if report.skipped else report.outcome
        row["test"] = item.nodeid.rpartition("/")[2]


def pytest_sessionfinish() -> None:
    """Bring the transcript up to date when the environment names a file for it; rows of tests that were not run now stay."""
    path = os.environ.get(TRANSCRIPT)
    if path:
        Path(path).write_text(_transcript(_earlier_rows(Path(path))))
    path = os.environ.get(KILL_TABLE)
    if path and _cells:
        Path(path).write_text(_kill_table())


def _earlier_rows(path: Path) -> dict[str, list[str]]:
    rows = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if len(cells) == len(_COLUMNS) and cells[-1].startswith("`test_"):
            rows[cells[-1].strip("`")] = cells
    return rows


def _transcript(rows: dict[str, list[str]]) -> str:
    for row in _rows.values():
        values = {**row, "run on": f"{datetime.now(UTC):%Y-%m-%d}", "test": f"`{row['test']}`"}
        rows[row["test"]] = [values.get(name, "").replace("|", "/").replace("\n", " ") for name in _COLUMNS]
    lines = [
        "# Faults: what was done to a running server, and what came of it",
        "",
        "Written by `make faults`, which replaces the rows of the tests that it ran. Every suite starts real processes (`tallystick up`), keeps",
        "a ledger of its own of what was sent and answered, and after fault, restart and drain holds export, file destination, status and",
        "`tallystick verify` to it (`tests/support/ledger.py`; system call traces: `tests/support/trace.py`). Rows that say *goes red* ran a",
        "deliberately broken stand-in (`tests/fault/standins`), and passed because the suite found the fault in it. A test of `tests/fault`",
        "that has no row was not run to its end since this page was begun. Models (`test_model_*`) start no processes: they run a real",
        "component on a simulated disk that is cut before its durable steps (`tests/support/crash_model.py`); their stand-ins are beside them.",
        "",
        f"Last on Linux {platform.release()}, Python {platform.python_version()}, {os.cpu_count()} cores, shared with other work.",
        "",
        "| " + " | ".join(_COLUMNS) + " |",
        "|" + " --- |" * len(_COLUMNS),
    ]
    lines += ["| " + " | ".join(cells) + " |" for _, cells in sorted(rows.items())]
    return "\n".join(lines) + "\n"


def _kill_table() -> str:
    """One line a source, one column a kill point; the suites fail where a cell has no result, and forwarders keep no place of theirs here."""
    points = list(dict.fromkeys(point for _, point in _cells))
    lines = [
        "# Sources and kills: what a kill -9 at each point costs",
        "",
        "Written by `make kills`. All sources of a test are at work at the same time, with clients and servers that are not ours where there",
        "are any; the intake is killed at each point by a real SIGKILL, at a system call where the column names one, and started again. Then",
        "every record that was accepted has to be in the export, once where an id or a place names it, and `tallystick verify` has to pass.",
        "What a broker, database, bucket or file holds counts as accepted. A kill while a place is saved concerns sources that keep one.",
        "",
        f"Last on {datetime.now(UTC):%Y-%m-%d}, Linux {platform.release()}, Python {platform.python_version()}, {os.cpu_count()} cores.",
        "",
        "| source | " + " | ".join(points) + " |",
        "|" + " --- |" * (1 + len(points)),
    ]
    sources = dict.fromkeys(source for source, _ in _cells)
    lines += [
        f"| `{source}` | " + " | ".join(_cells.get((source, point), "keeps no place") for point in points) + " |"
        for source in sources
    ]
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """After all suites there are no more processes of ours, mounts or loop devices than before."""
    place = str(tmp_path_factory.getbasetemp())  # other suites that run at the same time have another
    before = _traces(place)
    yield
    left = {kind: found - before[kind] for kind, found in _traces(place).items()}
    assert not any(left.values()), f"left behind: {left}"


def _traces(place: str) -> dict[str, set[str]]:
    """Our own children and whatever works in the directory of this run; mounts and loop devices in it."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout.splitlines()
    processes = {line for line in listed if line.split()[1] == str(os.getpid()) and " ps -eo" not in line}
    loops = subprocess.run(["losetup", "-l", "-n", "-O", "BACK-FILE"], capture_output=True, text=True).stdout.splitlines()
    return {
        "processes": processes | {line for line in listed if place in line and "tallystick" in line},
        "mounts": {line for line in Path("/proc/mounts").read_text().splitlines() if place in line},
        "loops": {line for line in loops if place in line},
    }
