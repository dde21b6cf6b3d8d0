"""One run: what it was asked for, the machine's limits, and the results as they come in."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.machine import Machine
from bench.table import Row


@dataclass(slots=True)
class Run:
    """``seconds``: length of one load; ``minutes``: of the sustained one; ``gb``: size of the backlog in 10^9 bytes of journal."""

    directory: Path
    machine: Machine
    seconds: float
    minutes: float
    gb: float
    events: int
    ids: int
    overload_s: float
    results_path: Path
    rows: list[Row] = field(default_factory=list)
    series: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    console: Console = field(default_factory=lambda: Console(stderr=True))

    def scratch(self, name: str) -> Path:
        """A new directory below the run's own, on the disk that is measured."""
        path = self.directory / name
        path.mkdir(parents=True)
        return path

    def say(self, text: str) -> None:
        """What is going on, for who waits."""
        self.console.print(text, highlight=False)

    def add(self, *rows: Row) -> None:
        """Rows that are done; each is told at once, and the file of results is written anew."""
        for row in rows:
            self.rows.append(row)
            self.say(f"  {row.what}: {row.measured}  {row.reached}")
        self.save()

    def attempt(self, name: str, scenario: Callable[[Run], None]) -> None:
        """Run one scenario. When it fails, that is told and becomes a row, and the run goes on: the others are worth their time."""
        self.say(f"[bold]{name}[/bold]")
        try:
            scenario(self)
        except Exception as error:  # noqa: BLE001
            self.console.print_exception()
            self.failed.append(name)
            self.add(Row(f"failed-{name}", name, f"failed: {error!r}"[:300]))

    def value(self, key: str) -> float | None:
        """The value of a row that was measured before."""
        return next((row.value for row in self.rows if row.key == key), None)

    def save(self) -> None:
        """Everything so far, as JSON."""
        page = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "asked": {"seconds": self.seconds, "minutes": self.minutes, "gb": self.gb, "events": self.events, "ids": self.ids},
            "machine": {"cores": os.cpu_count(), **asdict(self.machine)},
            "versions": self.versions,
            "rows": [row.as_dict() for row in self.rows],
            "series": self.series,
        }
        self.results_path.write_text(json.dumps(page, indent=1, ensure_ascii=False) + "\n")


def own_versions() -> dict[str, str]:
    """What the table's title names."""
    wrk = subprocess.run(["wrk", "-v"], capture_output=True, text=True, check=False).stdout.split("\n")[0]
    return {
        "Linux": ".".join(platform.release().split(".")[:2]),
        "Python": sys.version.split()[0],
        "wrk": wrk.split(" [")[0].removeprefix("wrk ").removeprefix("debian/"),
    }
