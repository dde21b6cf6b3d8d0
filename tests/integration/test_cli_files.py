"""The verbs that touch files: `check` with good and bad configurations, `up` with the same, `verify` and its exit codes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.server import Server, free_port
from support.target import event_text
from support.webhook_receiver import SECRET
from tallystick.sources.kind import built_in_kinds

COMMAND = [sys.executable, "-c", "from tallystick.cli.main import run; run()"]


def run(directory: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in ``directory``, with no TALLYSTICK_ variables but those given."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TALLYSTICK")}
    options = {"cwd": directory, "env": {**clean, **environment}, "stdin": subprocess.DEVNULL}
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60, **options)


GOOD = """
[server]
listen = "127.0.0.1:8420"
[pipeline]
transforms = ["secrets"]
[sources.cloudtrail]
type = "http"
mapping = "aws_cloudtrail"
tenant = "acme"
transforms = ["noise"]
[transforms.noise]
type = "filter"
drop = "action:health.check"
[destinations.disk]
type = "file"
path = "out.jsonl"
[destinations.hook]
type = "webhook"
url = "https://example.com/audit"
secret = { env = "HOOK_SECRET" }
where = "outcome:denied"
"""


def test_check_names_every_end(tmp_path: Path) -> None:
    """Exit 0, and for every way in the places where an event may end; nothing is made."""
    (tmp_path / "t.toml").write_text(GOOD)
    done = run(tmp_path, "check", "t.toml", HOOK_SECRET=SECRET)
    assert done.returncode == 0, done.stderr
    page = json.loads(done.stdout)
    ways = {way["source"]: way for way in page["ways"]}
    assert set(ways) == {"events", *built_in_kinds(), "cloudtrail"}
    assert ways["cloudtrail"]["steps"][:4] == [
        "POST /v1/in/cloudtrail",
        "mapping aws_cloudtrail",
        "transform secrets",
        "transform noise",
    ]
    ends = " ".join(ways["cloudtrail"]["ends"])
    for word in ("quarantined", "filtered by noise", "disk: delivered", "hook: delivered", "outcome:denied"):
        assert word in ends
    assert [path.name for path in tmp_path.iterdir()] == ["t.toml"]


def test_check_probe_tells_who_does_not_answer(tmp_path: Path) -> None:
    """Exit 1 when a destination would not take events, with its name and why."""
    (tmp_path / "t.toml").write_text(
        f'[destinations.disk]\ntype = "file"\npath = "out.jsonl"\n[destinations.hook]\ntype = "webhook"\n'
        f'url = "http://127.0.0.1:{free_port()}/"\nsecret = "{SECRET}"\nallow_private = true\n'
    )
    done = run(tmp_path, "check", "t.toml", "--probe")
    page = json.loads(done.stdout)
    assert done.returncode == 1
    assert page["ok"] is False
    assert page["probes"]["disk"] is True
    assert page["probes"]["hook"] is not True


def test_no_file_at_all_is_a_good_configuration(tmp_path: Path) -> None:
    """An empty one too."""
    (tmp_path / "t.toml").write_text("")
    assert run(tmp_path, "check", "t.toml").returncode == 0


BAD = {
    "unknown key": ("[server]\nlisten = '127.0.0.1:1'\nlisteen = 1\n", 3, "listeen"),
    "unknown section": ("[data]\ndir = 'd'\n[sevrer]\nname = 'x'\n", 3, "sevrer"),
    "unknown key of a destination": ('[destinations.d]\ntype = "file"\npath = "x"\npaht = "y"\n', 4, "paht"),
    "unknown key of a source": ('[sources.s]\ntype = "http"\ntenent = "x"\n', 3, "tenent"),
    "wrong unit": ('[seal]\ninterval = "250 parsecs"\n', 2, "parsecs"),
    "number without unit": ("[seal]\n\ninterval = 250\n", 3, "interval"),
    "negative size": ('[data]\nquota = "-1GiB"\n', 2, "-1GiB"),
    "unknown destination type": ('[destinations.d]\ntype = "carrier_pigeon"\n', 2, "carrier_pigeon"),
    "destination without type": ('[destinations.d]\npath = "x"\n', 1, "type"),
    "unknown source type": ('\n[sources.s]\ntype = "telepathy"\n', 3, "telepathy"),
    "unknown mapping": ('[sources.s]\ntype = "http"\nmapping = "nope"\n', 3, "nope"),
    "unknown transform": ('[pipeline]\ntransforms = ["nope"]\n', 2, "nope"),
    "unknown transform of a source": ('[sources.s]\ntype = "http"\ntransforms = ["nope"]\n', 3, "nope"),
    "transform without type": ('[pipeline]\ntransforms = ["t"]\n[transforms.t]\ndrop = "a"\n', 3, "type"),
    "filter without rule": ('[pipeline]\ntransforms = ["t"]\n[transforms.t]\ntype = "filter"\n', 3, "drop"),
    "bad query of a filter": ('[pipeline]\ntransforms = ["t"]\n[transforms.t]\ntype = "filter"\ndrop = "a:("\n', 3, "transforms.t"),
    "bad query of a destination": ('[destinations.d]\ntype = "file"\npath = "x"\nwhere = "a:("\n', 4, "where"),
    "duplicate key": ("[server]\nlisten = '127.0.0.1:1'\nlisten = '127.0.0.1:2'\n", 3, "given again"),
    "duplicate table": ("[server]\n[data]\n[server]\n", 3, "server"),
    "no TOML": ("[server\n", 1, "TOML"),
    "missing environment variable": (
        '[destinations.h]\ntype = "webhook"\nurl = "https://example.com"\nsecret = { env = "NOT_SET" }\n', 4, "NOT_SET"
    ),
    "missing secret file": (
        '[destinations.h]\ntype = "webhook"\nurl = "https://example.com"\nsecret = { file = "nowhere" }\n', 4, "nowhere"
    ),
    "webhook without secret": ('[destinations.h]\ntype = "webhook"\nurl = "https://example.com"\n', 1, "secret"),
    "plain webhook": ('[destinations.h]\ntype = "webhook"\nurl = "http://example.com"\nsecret = "' + SECRET + '"\n', 1, "https"),
    "webhook with a short secret": ('[destinations.h]\ntype = "webhook"\nurl = "https://example.com"\nsecret = "short"\n', 1, "short"),
    "webhook with a bad CA": (
        '[destinations.h]\ntype = "webhook"\nurl = "https://example.com"\nca = "t.toml"\nsecret = "' + SECRET + '"\n', None, "CA"
    ),
    "object store with unknown options": (
        '[destinations.s]\ntype = "object_store"\nurl = "s3://bucket/x"\noptions = { nope = "1" }\n', 1, "nope"
    ),
    "port 99999": ('[server]\nlisten = "127.0.0.1:99999"\n', 2, "99999"),
    "no port": ('[server]\nlisten = "127.0.0.1"\n', 2, "listen"),
    "off loopback": ('[server]\n\nlisten = "0.0.0.0:8420"\n', 3, "insecure"),
    "server name with blanks": ('[server]\nname = "a b"\n', 2, "name"),
    "wrong type": ('[server]\nworkers = "two"\n', 2, "workers"),
    "section that is no table": ("server = 1\n", 1, "server"),
    "tenant of a source": ('[sources.s]\ntype = "http"\ntenant = "A/B"\n', 3, "tenant"),
    "built-in name of a source": ('[sources.events]\ntype = "http"\n', 1, "events"),
    "not UTF-8": ("[server]\nname = '\udcff'\n", None, "TOML"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_check_refuses_with_file_and_line(tmp_path: Path, name: str) -> None:
    """Exit 2, one line on stderr: the word that is wrong, and file:line of it."""
    text, line, word = BAD[name]
    (tmp_path / "t.toml").write_bytes(text.encode("utf-8", "surrogateescape"))
    done = run(tmp_path, "check", "t.toml")
    assert done.returncode == 2, done.stderr + done.stdout
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert word in done.stderr
    assert ("t.toml" if line is None else f"t.toml:{line}") in done.stderr, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["t.toml"]


@pytest.mark.parametrize(
    "name", ["unknown key", "unknown destination type", "missing environment variable", "off loopback", "bad query of a filter"]
)
def test_up_refuses_the_same_before_anything_is_made(tmp_path: Path, name: str) -> None:
    """The same words and the same exit code, and neither directory nor socket."""
    text, line, word = BAD[name]
    (tmp_path / "tallystick.toml").write_text(text)
    done = run(tmp_path, "up")
    assert done.returncode == 2, done.stderr
    assert word in done.stderr
    assert f"tallystick.toml:{line}" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["tallystick.toml"]


def test_a_secret_file_that_everyone_can_read(tmp_path: Path) -> None:
    """Refused with the command that mends it; its content is not shown."""
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "secret").chmod(0o644)
    (tmp_path / "t.toml").write_text(
        '[destinations.h]\ntype = "webhook"\nurl = "https://example.com"\nsecret = { file = "secret" }\n'
    )
    done = run(tmp_path, "check", "t.toml")
    assert done.returncode == 2
    assert "chmod 600" in done.stderr
    assert SECRET not in done.stderr
    (tmp_path / "secret").chmod(0o600)
    assert run(tmp_path, "check", "t.toml").returncode == 0


def test_check_of_a_file_that_is_not_there(tmp_path: Path) -> None:
    """Exit 2 with its name."""
    done = run(tmp_path, "check", "absent.toml")
    assert (done.returncode, "absent.toml" in done.stderr, "Traceback" in done.stderr) == (2, True, False)


# --- verify


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stopped installation with 50 sealed events."""
    server = Server(
        tmp_path_factory.mktemp("sealed"),
        '[data]\nreserve = "1MiB"\n[journal]\nsegment_size = "4MiB"\n[seal]\ninterval = "50ms"\nroot_interval = "100ms"\n',
    )
    try:
        server.start()
        server.send_ok(b"\n".join(event_text() for _ in range(50)))
        server.drain(50)
        assert server.stop() == 0
    finally:
        server.close()
    return server.directory


def test_verify_holds(sealed: Path) -> None:
    """Exit 0 with each step, as JSON and as text."""
    done = run(sealed, "verify", "--data", "data")
    assert done.returncode == 0, done.stdout
    page = json.loads(done.stdout)
    assert page["events"] >= 50
    assert page["problems"] == []
    assert page["steps"]


def test_verify_of_a_copy_says_what_is_not_proven(sealed: Path, tmp_path: Path) -> None:
    """Exit 5 without a key; a wrong key is exit 4."""
    shutil.copytree(sealed / "data", tmp_path / "copy")
    done = run(tmp_path, "verify", "--data", "copy")
    assert done.returncode == 5, done.stdout
    assert json.loads(done.stdout)["not_proven"]
    vkey = (sealed / "data.keys" / "root.vkey").read_text().strip()
    other = vkey[:-8] + "AAAAAAA="
    assert run(tmp_path, "verify", "--data", "copy", "--public-key", other).returncode in (2, 4)


def test_verify_finds_one_flipped_bit(sealed: Path, tmp_path: Path) -> None:
    """Exit 4 and the place."""
    shutil.copytree(sealed, tmp_path / "copy")
    level = max((tmp_path / "copy" / "data" / "trees").rglob("level-0"), key=lambda path: path.stat().st_size)
    data = bytearray(level.read_bytes())
    data[40] ^= 1
    level.write_bytes(data)
    done = run(tmp_path / "copy", "verify", "--data", "data")
    assert done.returncode == 4
    page = json.loads(done.stdout)
    assert page["problems"][0]["place"]


def test_verify_of_what_is_no_data_directory(tmp_path: Path) -> None:
    """Exit 2 or 3, and nothing is made."""
    for name in (".", "absent"):
        done = run(tmp_path, "verify", "--data", name)
        assert done.returncode in (2, 3), done.stdout
        assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
