"""Reading a configuration: defaults, overrides, secrets, and errors that name file and line."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.config import Config, DestinationSettings, Duration, Size, load_config
from tallystick.config.load import decode_table, place_of
from tallystick.config.settings import Settings
from tallystick.errors import ConfigError


class HookSettings(DestinationSettings, frozen=True, kw_only=True):
    """A destination's settings with a secret."""

    secret: str
    size: Size = Size("1B")


def load(tmp_path: Path, text: str, overrides: dict[str, dict[str, Any]] | None = None) -> Config:
    path = tmp_path / "tallystick.toml"
    path.write_text(text)
    return load_config(path, overrides)


def test_no_file_at_all_is_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything has a default, and paths start at the working directory."""
    monkeypatch.chdir(tmp_path)
    config = load_config(None)
    assert config.server.listen == "127.0.0.1:8420"
    assert (config.data_dir, config.keys_dir) == (tmp_path / "data", tmp_path / "data.keys")
    assert config.archive_url == str(tmp_path / "data" / "archive")
    assert config.hash == hashlib.sha256(b"").hexdigest()


def test_paths_start_at_the_file(tmp_path: Path) -> None:
    """Wherever the process runs; absolute ones and URLs stay."""
    config = load(tmp_path, '[data]\ndir = "d"\n[keys]\ndir = "/k"\n[archive]\nstore = "s3://bucket/x"')
    assert (config.data_dir, config.keys_dir, config.archive_url) == (tmp_path / "d", Path("/k"), "s3://bucket/x")
    assert load(tmp_path, '[archive]\nstore = "a"').archive_url == str(tmp_path / "a")


def test_the_hash_is_that_of_the_bytes(tmp_path: Path) -> None:
    """What an event's `ingest.config` says can be compared with the file by anyone."""
    text = '[server]\nname = "a.example.com"\n'
    assert load(tmp_path, text).hash == hashlib.sha256(text.encode()).hexdigest()


def test_the_command_line_wins(tmp_path: Path) -> None:
    """Over the file, key by key, also for sections that the file does not have."""
    config = load(tmp_path, '[data]\ndir = "d"\nquota = "1GiB"', {"data": {"dir": "/x"}, "server": {"listen": "127.0.0.1:1"}})
    assert (config.data.dir, config.data.quota, config.server.listen) == ("/x", Size("1GiB"), "127.0.0.1:1")


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("[server]\nnmae = 'x'", 2, "server.nmae: unknown key `nmae`"),
        ("\n\n[servr]\nname = 'x'", 3, "servr: unknown key `servr`"),
        ("[seal]\ninterval = 5", 2, "seal.interval: expected text with a unit, got 5"),
        ("[seal]\n# a comment\ninterval = '5'", 3, "is no duration"),
        ("[data]\nquota = '5 GB'", 2, "is no size"),
        ("[server]\nname = 'Not A Name'", 2, "server.name"),
        ("[server]\nworkers = 0", 2, "server.workers"),
        ("[server]\ntls = { cert = 'c', key = 'k', ca = 'x' }", 2, "server.tls.ca: unknown key `ca`"),
        ("server.listen = 5", 1, "server.listen"),
        ("[limits]\nbody = '1MiB'\nevent = '5MiB'", 3, "not between 1KiB and 1MiB"),
        ("[pipeline]\ntransforms = ['a', 5]", 2, "pipeline.transforms"),
        ("data = 5", 1, "data"),
        ("path = 'x'", 1, "unknown key `path`"),
        ("[server]\nname = ", 2, "not valid TOML"),
        ("[server]\nname = 'a'\nname = 'b'", 3, "not valid TOML"),
    ],
)
def test_errors_name_the_line(tmp_path: Path, text: str, line: int, message: str) -> None:
    """What is wrong, and where to look; overrides do not change that."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, {"data": {"dir": "/x"}})
    assert message in str(caught.value)
    assert f"tallystick.toml:{line}" in (caught.value.place or "")


def test_a_file_that_is_not_there_or_not_text_is_an_error_of_ours(tmp_path: Path) -> None:
    """No traceback for a wrong path."""
    with pytest.raises(ConfigError, match="No such file"):
        load_config(tmp_path / "nosuch.toml")
    (tmp_path / "bad.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_config(tmp_path / "bad.toml")
    with pytest.raises(ConfigError, match="command line"):
        load_config(None, {"data": {"colour": 1}})


class LoginSettings(Settings, frozen=True):
    login: dict[str, Any]


def hook(tmp_path: Path, line: str) -> HookSettings:
    config = load(tmp_path, f'[destinations.hook]\ntype = "x"\n{line}\n')
    return decode_table(config, "destinations", "hook", config.destinations["hook"], HookSettings)


def test_secrets_come_from_environment_or_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By name, without the line end that editors leave; relative to the configuration."""
    monkeypatch.setenv("HOOK_SECRET", "from the environment")
    (tmp_path / "secret").write_text("from a file\n")
    (tmp_path / "secret").chmod(0o600)
    assert hook(tmp_path, 'secret = { env = "HOOK_SECRET" }').secret == "from the environment"
    assert hook(tmp_path, 'secret = { file = "secret" }').secret == "from a file"
    assert hook(tmp_path, 'secret = "plain"').secret == "plain"


def test_a_secret_may_stand_in_a_table_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At any depth; a table that only looks a little like a secret stays a table."""
    monkeypatch.setenv("HOOK_SECRET", "from the environment")
    config = load(tmp_path, '[sources.s]\nlogin = { user = "u", password = { env = "HOOK_SECRET" }, more = { env = 1 } }\n')
    found = decode_table(config, "sources", "s", config.sources["s"], LoginSettings)
    assert found.login == {"user": "u", "password": "from the environment", "more": {"env": 1}}


def test_a_secret_that_is_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unset, empty, missing, not text, or open to everyone: each with the line that asks for it, never with the secret."""
    monkeypatch.setenv("EMPTY", "")
    for name, mode, data in (("open", 0o644, b"hidden"), ("empty", 0o600, b"\n"), ("binary", 0o600, b"\xff")):
        (tmp_path / name).write_bytes(data)
        (tmp_path / name).chmod(mode)
    for value, message in (
        ('{ env = "NOSUCH" }', "NOSUCH is not set"),
        ('{ env = "EMPTY" }', "or empty"),
        ('{ file = "nosuch" }', "No such file"),
        ('{ file = "open" }', "read by everyone"),
        ('{ file = "empty" }', "is empty"),
        ('{ file = "binary" }', "not UTF-8"),
    ):
        with pytest.raises(ConfigError, match=message) as caught:
            hook(tmp_path, f"secret = {value}")
        assert (caught.value.place or "").endswith("tallystick.toml:3")
        assert "hidden" not in str(caught.value)


def test_tables_of_plug_ins_are_checked_in_place(tmp_path: Path) -> None:
    """Unknown keys, wrong units and missing keys of a destination have its name and line."""
    for line, number, message in (
        ('secret = "s"\ncolour = 1', 4, "destinations.hook.colour: unknown key"),
        ('secret = "s"\nsize = "1 apple"', 4, "destinations.hook.size"),
        ("", 1, "destinations.hook: .*secret"),
    ):
        with pytest.raises(ConfigError, match=message) as caught:
            hook(tmp_path, line)
        assert (caught.value.place or "").endswith(f"tallystick.toml:{number}")


def test_places_of_keys(tmp_path: Path) -> None:
    """The key's line, else its table's, else the first; a file that is gone since is no second error."""
    config = load(tmp_path, '\n[sources."a.b"]\ntype = "http"\n\n[sources.c]\ntype = "http"')
    assert place_of(config, "sources.c.type").endswith(":6")
    assert place_of(config, "sources.c.tenant").endswith(":5")
    assert place_of(config, "nowhere").endswith(":1")
    (tmp_path / "tallystick.toml").unlink()
    assert place_of(config, "sources.c.type").endswith(":1")


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["ms", "s", "m", "h", "d"]))
def test_durations(number: int, unit: str) -> None:
    """A number and a unit, in seconds; equal lengths are equal."""
    seconds = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}[unit]
    assert Duration(f"{number}{unit}").seconds == pytest.approx(number * seconds)
    assert Duration(f"{number}m") == Duration(f"{number * 60}s")


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["B", "kB", "KiB", "MB", "MiB", "GB", "GiB", "TB", "TiB"]))
def test_sizes(number: int, unit: str) -> None:
    """Decimal and binary units are what they say, exactly."""
    powers = {"k": 1, "K": 1, "M": 2, "G": 3, "T": 4, "B": 0}
    base = 1024 if "i" in unit else 1000
    assert Size(f"{number}{unit}").bytes == number * base ** powers[unit[0]]


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=12))
def test_other_texts_are_no_values(text: str) -> None:
    """Either a value whose text is kept, or a ValueError that shows a right one; nothing else is ever raised."""
    for kind, form, example in (
        (Duration, r"[0-9]+(\.[0-9]+)?(ms|s|m|h|d)", "10s"),
        (Size, r"[0-9]+(\.[0-9]+)?([kMGT]?B|[KMGT]iB)", "16MiB"),
    ):
        if re.fullmatch(form, text):
            assert kind(text).text == text
        else:
            with pytest.raises(ValueError, match=example):
                kind(text)


@pytest.mark.parametrize("text", ["", "10", "s", "-1s", "1 s", "1S", "1e3s", "1.s", "１s", "1KB", "1mib"])
def test_near_misses(text: str) -> None:
    """What looks like a value and is none."""
    for kind in (Duration, Size):
        with pytest.raises(ValueError, match="write a number and a unit"):
            kind(text)


def test_quotas_of_a_tenant_are_read(tmp_path: Path) -> None:
    """`[tenants.NAME]` by name; a name that no tenant can have is refused with its line."""
    config = load(tmp_path, '[tenants.acme]\nevents_per_second = 5\nbytes_per_second = "1KiB"')
    assert (config.tenants["acme"].events_per_second, config.tenants["acme"].bytes_per_second) == (5, Size("1KiB"))
    with pytest.raises(ConfigError, match=r"no name of a tenant.*:2"):
        load(tmp_path, '[server]\n[tenants."A b"]\nevents_per_second = 5')


@pytest.mark.parametrize(
    "text",
    [
        'key_bytes_per_second = "0B"',
        "tenant_events_per_second = 0",
        'quota_burst = "10ms"',
        'bodies_in_flight = "64MiB"',
        "failed_logins = 0",
    ],
)
def test_limits_that_would_let_nothing_through_are_refused(tmp_path: Path, text: str) -> None:
    """At the start, and not one request at a time."""
    with pytest.raises(ConfigError, match="limits"):
        load(tmp_path, f"[limits]\n{text}")
