"""The command line as a whole: exit codes, and what the base install can do."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import packages_distributions, requires

import pytest

from tallystick.cli.main import SERVER_MODULES, exit_code
from tallystick.errors import ConfigError, IntegrityError, KeysMissingError, LockedError, TallystickError, TransientError

_WITHOUT_SERVER = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {modules!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
sys.argv = ["tallystick", *sys.argv[1:]]
from tallystick.cli.main import run
run()
"""


def run_base(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command with every module of `tallystick[server]` hidden."""
    program = _WITHOUT_SERVER.format(modules=set(SERVER_MODULES))
    return subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), 2),
        (LockedError("x"), 3),
        (KeysMissingError("x"), 3),
        (IntegrityError("x"), 4),
        (TransientError("x"), 1),
        (TallystickError("x"), 1),
    ],
)
def test_errors_have_the_designed_exit_codes(error: TallystickError, code: int) -> None:
    """1 failed, 2 configuration, 3 start refused, 4 integrity."""
    assert exit_code(error) == code


def test_the_base_install_shows_its_help() -> None:
    """`tallystick --help` needs no library of the server."""
    done = run_base("--help")
    assert done.returncode == 0, done.stderr
    assert "verify" in done.stdout


@pytest.mark.parametrize("arguments", [("up", "--data", "nowhere"), ("check", "nowhere.toml")])
def test_the_base_install_names_what_a_server_verb_needs(arguments: tuple[str, ...]) -> None:
    """Instead of a traceback there is the command that installs the rest."""
    done = run_base(*arguments)
    assert done.returncode == 2
    assert "tallystick[server]" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_server_modules_are_those_of_the_server_extra() -> None:
    """The list behind that hint and pyproject's `server` extra are the same."""
    names = {re.split("[<>;]", line)[0].strip() for line in requires("tallystick") or [] if "server" in line.partition(";")[2]}
    owners = packages_distributions()
    found = {module: {owner.lower().replace("_", "-") for owner in owners[module]} for module in SERVER_MODULES}
    # `google` and `opentelemetry` are shared names: packages that only tests need live below them too.
    assert all(found[module] & names for module in SERVER_MODULES)
    assert names <= {owner for some in found.values() for owner in some}


def test_the_base_install_verifies_a_server() -> None:
    """`verify --url` needs no library of the server; what it is given is checked before anything is asked."""
    done = run_base("verify", "--url", "http://127.0.0.1:1", "--public-key", "nonsense")
    assert done.returncode == 2
    assert "no public key" in done.stderr
    done = run_base("verify", "--url", "http://127.0.0.1:1", "--data", "data")
    assert done.returncode == 2
    assert "--url and --data exclude each other" in done.stderr
