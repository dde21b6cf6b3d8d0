"""What `up` and `check` refuse before anything is opened, and what they say of the ways of an event."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tallystick.config import Config, load_config
from tallystick.errors import ConfigError
from tallystick.pipeline.check import check_config, probe_destinations
from tallystick.pipeline.process import bind_tcp, bind_unix
from tallystick.pipeline.role import overrides_from, parse_role_arguments, role_arguments
from tallystick.pipeline.start import base_url, check_listen

EXAMPLE = """
[transforms.noise]
type = "filter"
drop = "action:health.check"
[sources.cloudtrail]
type = "http"
mapping = "aws_cloudtrail"
transforms = ["noise"]
[destinations.lake]
type = "object_store"
url = "out/lake"
where = "category:authentication"
[destinations.disk]
type = "file"
path = "out/events.jsonl"
"""


def configured(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "tallystick.toml"
    path.write_text(text)
    return load_config(path)


def test_every_way_is_listed_with_all_its_ends(tmp_path: Path) -> None:
    """Source by source: steps in order, and each place where an event may end, named."""
    ways = {way["source"]: way for way in check_config(configured(tmp_path, EXAMPLE))}
    events, cloudtrail = ways["events"], ways["cloudtrail"]
    assert events["steps"][0] == "POST /v1/events"
    assert not any("filtered by noise" in end for end in events["ends"])
    assert cloudtrail["steps"] == [
        "POST /v1/in/cloudtrail",
        "mapping aws_cloudtrail",
        "transform secrets",
        "transform noise",
        "journal, tree, archive, search",
    ]
    assert cloudtrail["ends"] == [
        "quarantined with a reason",
        "filtered by noise",
        "lake: delivered, or dead-lettered with a reason, or filtered by its where (category:authentication)",
        "disk: delivered, or dead-lettered with a reason",
    ]


def test_without_destinations_events_end_in_the_archive() -> None:
    """No file at all is valid, and still no end is unnamed."""
    for way in check_config(load_config(None)):
        assert "kept in the archive; no destination is configured" in way["ends"]


def test_checking_writes_nothing(tmp_path: Path) -> None:
    """No directory and no file."""
    check_config(configured(tmp_path, EXAMPLE))
    assert [path.name for path in tmp_path.iterdir()] == ["tallystick.toml"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('[destinations.x]\ntype = "file"\npath = "a"\nwhere = "action:(a"', 4),
        ('[destinations.x]\ntype = "nosuch"', 2),
        ('[destinations.x]\ntype = "file"\ncolour = 1', 3),
        ('[sources.x]\ntype = "http"\nmapping = "nosuch"', 3),
    ],
)
def test_what_a_start_would_refuse_is_refused(tmp_path: Path, text: str, line: int) -> None:
    """With the line."""
    with pytest.raises(ConfigError) as caught:
        check_config(configured(tmp_path, text))
    assert (caught.value.place or "").endswith(f"tallystick.toml:{line}")


def test_probing_says_yes_or_why_not(tmp_path: Path) -> None:
    """A directory that can be made is fine; one below a file is not, with the reason."""
    (tmp_path / "blocked").write_text("a file")
    text = EXAMPLE + '[destinations.bad]\ntype = "file"\npath = "blocked/events.jsonl"\n'
    answers = probe_destinations(configured(tmp_path, text))
    assert (answers["lake"], answers["disk"]) == (True, True)
    assert isinstance(answers["bad"], str)
    assert answers["bad"]


@pytest.mark.parametrize("listen", ["127.0.0.1:8420", "[::1]:1", "localhost:65535"])
def test_loopback_needs_nothing(listen: str) -> None:
    """Plain HTTP on this machine is the default."""
    check_listen(load_config(None, {"server": {"listen": listen}}))


@pytest.mark.parametrize("listen", ["0.0.0.0:8420", "[::]:8420", "192.0.2.1:80"])
def test_off_loopback_needs_tls_or_a_word(listen: str) -> None:
    """`tls`, or `insecure = true`; nothing else."""
    with pytest.raises(ConfigError, match="plain HTTP"):
        check_listen(load_config(None, {"server": {"listen": listen}}))
    check_listen(load_config(None, {"server": {"listen": listen, "insecure": True}}))
    check_listen(load_config(None, {"server": {"listen": listen, "tls": {"cert": "c", "key": "k"}}}))


@pytest.mark.parametrize(
    "listen", ["8420", ":8420", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", "example.com:80", "127.0.0.1:x"]
)
def test_what_is_no_address_is_refused(listen: str) -> None:
    """Names too: they would be looked up at every start."""
    with pytest.raises(ConfigError):
        check_listen(load_config(None, {"server": {"listen": listen}}))


@pytest.mark.parametrize(
    ("listen", "url"),
    [("127.0.0.1:8420", "http://127.0.0.1:8420"), ("0.0.0.0:80", "http://127.0.0.1:80"), ("[::]:80", "http://[::1]:80")],
)
def test_the_printed_url_can_be_opened(listen: str, url: str) -> None:
    """ "All addresses" is none that a browser can open."""
    assert base_url(load_config(None, {"server": {"listen": listen}})) == url


def test_an_address_in_use_is_refused_with_a_hint() -> None:
    """At once, and not by a role that ends again and again."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
            bind_tcp(f"127.0.0.1:{port}")
    bind_tcp(f"127.0.0.1:{port}").close()


def test_a_unix_socket_lies_where_paths_are_long(tmp_path: Path) -> None:
    """Deeper than the 108 bytes of sun_path, for its owner alone, and over a stale one."""
    directory = tmp_path / ("d" * 100) / ("e" * 100)
    directory.mkdir(parents=True)
    for _ in range(2):
        bind_unix(directory / "intake.sock").close()
    assert (directory / "intake.sock").stat().st_mode & 0o777 == 0o600


def test_a_role_is_given_what_up_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child reads the same configuration with the same overrides, from the same directory."""
    monkeypatch.chdir(tmp_path)
    Path("tallystick.toml").write_text('[server]\nname = "a.example.com"\n')
    given = (Path("tallystick.toml"), "d", "k", "127.0.0.1:1")
    role, parent, read, listener = parse_role_arguments(["sealer", "77", *role_arguments(*given)])
    assert (role, parent, listener) == ("sealer", 77, None)
    expected = load_config(given[0], overrides_from(*given[1:]))
    config = read()
    assert config == expected
    assert (config.data_dir, config.keys_dir, config.server.listen) == (tmp_path / "d", tmp_path / "k", "127.0.0.1:1")
    assert role_arguments(None, None, None, None) == []
