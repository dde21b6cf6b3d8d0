"""The rules of a first start, and of every later one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tallystick.config import Config, load_config
from tallystick.durable import set_observer
from tallystick.errors import ConfigError, FormatRefusedError, KeysMissingError, StartError
from tallystick.pipeline.context import open_installation


def config(directory: Path, name: str = "audit.example.com", **sections: dict[str, Any]) -> Config:
    return load_config(None, {"server": {"name": name}, "data": {"dir": str(directory / "data")}, **sections})


def test_a_first_start_makes_keys_and_format(tmp_path: Path) -> None:
    """The data directory belongs to its owner alone, says its format and its server's name, and opens again."""
    made = open_installation(config(tmp_path), create=True)
    assert (tmp_path / "data" / "FORMAT").read_text() == "tallystick 1.0\nname audit.example.com\n"
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
    assert made.keys_dir == tmp_path / "data.keys"
    again = open_installation(config(tmp_path))
    assert again.server_name == "audit.example.com"
    assert again.keys.derive("x") == made.keys.derive("x")
    assert again.run_dir == tmp_path / "data" / "run"


def test_nothing_is_made_unless_asked(tmp_path: Path) -> None:
    """A role, or verify, never makes a data directory."""
    with pytest.raises(KeysMissingError, match="no Tallystick data directory"):
        open_installation(config(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_first_start_survives_a_crash_at_every_durable_step(tmp_path: Path) -> None:
    """Whatever a crash leaves half made, the next start goes on by itself, with one root key."""
    for crash_at in range(1, 200):
        directory = tmp_path / str(crash_at)
        directory.mkdir()
        steps = iter(range(crash_at))

        def crash(operation: str, path: Path | None, fd: int, steps: Any = steps) -> None:
            if next(steps, None) is None:
                raise SystemExit

        set_observer(crash)
        try:
            open_installation(config(directory), create=True)
            return
        except SystemExit:
            pass
        finally:
            set_observer(None)
        made = open_installation(config(directory), create=True)
        assert open_installation(config(directory)).keys.derive("x") == made.keys.derive("x")
    raise AssertionError("no start came to its end")


def test_an_empty_file_system_may_be_a_data_directory(tmp_path: Path) -> None:
    """`lost+found` is there on a new volume; anything else is somebody's."""
    (tmp_path / "data" / "lost+found").mkdir(parents=True)
    open_installation(config(tmp_path, keys={"dir": str(tmp_path / "keys")}), create=True)


def test_a_directory_with_other_things_in_it_is_refused(tmp_path: Path) -> None:
    """And nothing is written, no key either."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "letter.txt").write_text("mine")
    with pytest.raises(FormatRefusedError, match="not empty"):
        open_installation(config(tmp_path), create=True)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_file_in_the_way_is_a_start_error(tmp_path: Path) -> None:
    """No traceback: which path, and why."""
    (tmp_path / "data").write_text("a file")
    with pytest.raises(StartError, match="cannot be made"):
        open_installation(config(tmp_path), create=True)


def test_data_without_keys_is_refused(tmp_path: Path) -> None:
    """A copy of the data alone starts nowhere, and no new keys are made beside it."""
    open_installation(config(tmp_path), create=True)
    (tmp_path / "data.keys").rename(tmp_path / "elsewhere")
    with pytest.raises(KeysMissingError):
        open_installation(config(tmp_path), create=True)
    assert not (tmp_path / "data.keys").exists()


def test_keys_inside_the_data_are_refused(tmp_path: Path) -> None:
    """Copying data must never copy keys."""
    with pytest.raises(StartError):
        open_installation(config(tmp_path, keys={"dir": str(tmp_path / "data" / "keys")}), create=True)


def test_another_name_is_refused_with_the_right_one(tmp_path: Path) -> None:
    """The name is part of every origin; the hint says what to write."""
    open_installation(config(tmp_path), create=True)
    with pytest.raises(FormatRefusedError, match=r'name = "audit\.example\.com"'):
        open_installation(config(tmp_path, "other.example.com"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tallystick 2.0\nname audit.example.com\n", "format 2.0"),
        ("", "cannot be read"),
        ("something else\n", "cannot be read"),
        ("tallystick x.y\n", "cannot be read"),
    ],
)
def test_a_format_that_is_not_ours_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """A newer major version, or a file that is none."""
    open_installation(config(tmp_path), create=True)
    (tmp_path / "data" / "FORMAT").write_text(text)
    with pytest.raises(FormatRefusedError, match=message):
        open_installation(config(tmp_path))


def test_a_newer_minor_format_opens(tmp_path: Path) -> None:
    """Only the major version refuses."""
    open_installation(config(tmp_path), create=True)
    (tmp_path / "data" / "FORMAT").write_text("tallystick 1.7\nname audit.example.com\n")
    assert open_installation(config(tmp_path)).server_name == "audit.example.com"


def test_a_directory_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    """Whoever can write there could put files in the journal's place."""
    open_installation(config(tmp_path), create=True)
    (tmp_path / "data").chmod(0o777)
    with pytest.raises(ConfigError, match="others can write"):
        open_installation(config(tmp_path))
