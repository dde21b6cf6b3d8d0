"""What `up` says when everything runs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tallystick.cli.up import _announce

URL = "http://127.0.0.1:8420"
LOGIN = f"{URL}/login?code=once"


def test_the_demo_prints_link_and_curl_line_also_without_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`make run` with its output in a file still ends in a console link and a curl line."""
    _announce(URL, LOGIN, tmp_path / "admin.key", "ts_id_secret", is_demo=True)
    printed = capsys.readouterr().out
    assert f"{LOGIN}&next=%2F%3Ftenant%3Dnorthwind%26from%3D-7d " in printed
    assert "curl -sS http://127.0.0.1:8420/v1/events" in printed


def test_a_service_writes_neither_key_nor_login_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal the output is a log: nothing in it opens anything."""
    _announce(URL, LOGIN, tmp_path / "admin.key", "ts_id_secret", is_demo=False)
    printed = capsys.readouterr().out
    assert URL in printed
    assert "code=" not in printed
    assert "ts_id_secret" not in printed


def test_a_start_without_an_admin_key_of_its_own_says_where_it_listens(capsys: pytest.CaptureFixture[str]) -> None:
    """Once other keys administer, there is no key file to name."""
    _announce(URL, None, None, None, is_demo=False)
    assert capsys.readouterr().out.strip() == f"Tallystick is up on {URL}"


def test_the_curl_line_reads_the_key_in_a_shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Pasted as printed, the line sends the key of the file, also when the path needs quoting."""
    key_file = tmp_path / "with space" / "admin.key"
    key_file.parent.mkdir()
    key_file.write_text("ts_id_secret\n")
    _announce(URL, None, key_file, "ts_id_secret", is_demo=False)
    line = next(line for line in capsys.readouterr().out.split("\n") if "try it" in line).partition("try it")[2].strip()
    said = subprocess.run(["sh", "-c", line.replace("curl", "printf '%s|'", 1)], capture_output=True, text=True, check=True).stdout
    assert "|Authorization: Bearer ts_id_secret|" in said
    assert '"action":"invoice.export"' in said
