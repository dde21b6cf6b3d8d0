"""The wheel installed alone, and the README followed to the letter against it.

Two environments: *base* is empty but for the locked base dependencies and the wheel, as `pip install tallystick` leaves it; *server* has
the wheel alone too, and finds the server's libraries in the test environment (their own installation is `make setup`'s work).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import pytest

from support.server import free_port, wait_for

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"<!-- tested: ([a-z ]+) -->\n```[a-z]+\n(.*?)```", re.DOTALL)


def run(*command: str | Path, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=300, **options)
    assert not check or done.returncode == 0, f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", directory, ROOT)
    [path] = directory.glob("*.whl")
    return path


def base_names() -> set[str]:
    """What the base install needs, and what that needs in turn: names as in the lock."""
    names: set[str] = set()
    waiting = ["tallystick"]
    while waiting:
        for line in requires(waiting.pop()) or []:
            text, _, marker = line.partition(";")
            name = re.split(r"[\[<>=!~ (]", text.strip())[0].lower().replace("_", "-")
            if name not in names and "extra" not in marker and not re.search(r"win32|Windows|python_version\s*<", marker):
                names.add(name)
                waiting.append(name)
    return names


def base_lock() -> str:
    """The lock's entries of the base install, hashes and all."""
    entries = re.findall(
        r"^([\w.-]+)(==.*?)(?=^[\w.-]+==|\Z)", (ROOT / "requirements/server.txt").read_text(), re.DOTALL | re.MULTILINE
    )
    wanted = base_names()
    return "".join(name + rest for name, rest in entries if name in wanted)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """The directory of commands of an environment with the base install alone."""
    directory = tmp_path_factory.mktemp("base")
    venv.create(directory, with_pip=True)
    lock = directory / "lock.txt"
    lock.write_text(base_lock())
    run(directory / "bin/pip", "install", "--quiet", "--require-hashes", "-r", lock)
    run(directory / "bin/pip", "install", "--quiet", "--no-deps", wheel)
    return directory / "bin"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, wheel: Path, base: Path) -> Path:
    """The directory of commands of an environment with the wheel, and the test environment's libraries behind it."""
    directory = tmp_path_factory.mktemp("server")
    venv.create(directory, with_pip=False)
    run(base / "pip", "--python", directory / "bin/python", "install", "--quiet", "--no-deps", wheel)
    [packages] = directory.glob("lib/python3*/site-packages")
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    found = run(directory / "bin/python", "-c", "import tallystick; print(tallystick.__file__)").stdout
    assert found.startswith(str(packages)), "the server would not run from the wheel"
    return directory / "bin"


@dataclass
class Walk:
    """A stranger's folder with a running demo, and what `up` printed."""

    directory: Path
    printed: str
    environment: dict[str, str]

    def sh(self, script: str, commands: Path, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        environment = {**self.environment, "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}"}
        return run("sh", "-euc", script, cwd=self.directory, env=environment, check=check)

    def line(self, title: str) -> str:
        return next(line for line in self.printed.split("\n") if line.strip().startswith(title)).strip().removeprefix(title).strip()


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory, server: Path) -> Iterator[Walk]:
    directory = tmp_path_factory.mktemp("walk")
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("TALLYSTICK_", "PYTHON"))}
    url = f"http://127.0.0.1:{free_port()}"
    output, log = directory / "up.out", directory / "up.log"
    with output.open("w") as out, log.open("w") as err:
        command = [str(server / "tallystick"), "up", "--demo", "--listen", url.removeprefix("http://")]
        process = subprocess.Popen(command, cwd=directory, env=plain, stdout=out, stderr=err, stdin=subprocess.DEVNULL)
    try:
        wait_for(lambda: "try it" in output.read_text() or process.poll() is not None, "the demo to be up", 60)
        assert process.poll() is None, log.read_text()
        key = (directory / "demo-data/data.keys/admin.key").read_text().strip()
        walk = Walk(directory, output.read_text(), {**plain, "TALLYSTICK_URL": url, "TALLYSTICK_KEY": key})

        def is_told() -> bool:
            page = json.loads(walk.sh("tallystick status", server).stdout)
            delivered = page["destinations"]["disk"]["delivered"] > 500
            return delivered and all(row["pending"] == 0 for row in page["destinations"].values())

        wait_for(is_told, "the story to be told and delivered", 60, 0.3)
        yield walk
    finally:
        process.terminate()
        assert process.wait(30) == 0, log.read_text()


def run_block(walk: Walk, kind: str, text: str, base: Path, server: Path) -> str:
    """Run one block as its mark says; what it prints."""
    if kind == "python":
        return run(base / "python", "-c", text, env=walk.environment, cwd=walk.directory).stdout
    if kind == "toml":
        (walk.directory / "tallystick.toml").write_text(text)
        return ""
    if kind == "sh verify":  # the README says that the first seconds end in 5
        wait_for(lambda: walk.sh(text, server, check=False).returncode != 5, "the signing keys to be introduced", 60, 1)
    return walk.sh(text, base if kind == "sh" else server).stdout


def test_the_printed_lines_work_as_pasted(walk: Walk, base: Path) -> None:
    """`up` ends in a console link, a curl line and the variables for the verbs; each does what it says."""
    assert json.loads(walk.sh(walk.line("try it"), base).stdout)["accepted"] == 1
    found = walk.sh(f"{walk.line('verbs')}; tallystick search 'action:invoice.export' --tenant northwind --limit 1", base).stdout
    assert json.loads(found)["actor"]["id"] == "u_1"
    link = walk.line("console").split()[0]
    assert "Open the console" in walk.sh(f"curl -sS '{link}'", base).stdout


def test_the_readme_works_as_written(walk: Walk, base: Path, server: Path) -> None:
    """Every marked block of the README runs, in order, and shows what the text around it says."""
    blocks = BLOCK.findall((ROOT / "README.md").read_text("utf-8"))
    said = {text: run_block(walk, kind, text, base, server) for kind, text in blocks}

    def output(part: str) -> str:
        [found] = [value for text, value in said.items() if part in text]
        return found

    assert len(blocks) == 8
    assert '"accepted":1' in output("curl")
    assert '"id":"readme-1"' in output("explain readme-1")
    assert output("action:customer.export").count('"action":"customer.export"') == 3
    assert '"action":"' in output("tail -n 1")
    assert json.loads(output("verify --data"))["status"] == 0
    assert "[[" in output("import tallystick") or "[(" in output("import tallystick")
    assert '"ok":true' in output("tallystick check")


def test_the_examples_client_runs_on_the_base_install(walk: Walk, base: Path) -> None:
    """`examples/client.py` does what its comments say."""
    said = run(base / "python", ROOT / "examples/client.py", env=walk.environment, cwd=walk.directory).stdout
    assert "first 100 accepted, then 100 duplicates" in said
    assert "refused: " in said
    assert "role.grant Bob" in said


def test_the_base_install_is_small_and_complete(base: Path) -> None:
    """Client, command line and verify import without any library of the server."""
    installed = {row["name"].lower() for row in json.loads(run(base / "pip", "list", "--format=json").stdout)}
    assert not installed & {"pyarrow", "duckdb", "numpy", "litestar", "uvicorn", "prometheus-client"}
    assert "verify" in run(base / "tallystick", "--help").stdout
    run(base / "python", "-c", "import tallystick; tallystick.Client; tallystick.AsyncClient; import tallystick.evidence.verify")


def test_the_wheel_carries_its_data(server: Path) -> None:
    """Mappings, the console's templates and static files and the API's page are in the wheel."""
    program = (
        "from importlib.resources import files; root = files('tallystick');"
        "print(*[str(path.relative_to(root)) for path in root.rglob('*') if path.suffix not in ('.py', '.pyc')], sep='\\n')"
    )
    found = set(run(server / "python", "-c", program).stdout.split("\n"))
    tracked = run("git", "ls-files", "src/tallystick", cwd=ROOT).stdout.split()
    data = {path.removeprefix("src/tallystick/") for path in tracked if not path.endswith(".py")}
    assert len(data) >= 10
    assert data <= found


def test_the_base_install_verifies_what_it_can(walk: Walk, base: Path) -> None:
    """Without the libraries that open chunks everything else is recomputed, and what is missing is named: exit 5, never a silent pass."""

    def has_chunks() -> bool:
        return any((walk.directory / "demo-data/data/archive").rglob("*.parquet"))

    wait_for(has_chunks, "the archiver to write a chunk", 60, 0.3)
    done = walk.sh("tallystick verify --data demo-data/data", base, check=False)
    report = json.loads(done.stdout)
    assert done.returncode == 5, done.stdout
    assert not report["problems"]
    assert any("pip install 'tallystick[server]'" in line for line in report["not_proven"])
