"""Login codes and sessions."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tallystick.console.login import CODE_LIFETIME_S, issue_code, redeem_code
from tallystick.console.sessions import IDLE_S, LIFETIME_S, Sessions, check_form, check_origin
from tallystick.http.problem import Problem


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_a_code_works_once(tmp_path: Path) -> None:
    """The second redemption of a code gets nothing."""
    code = issue_code(tmp_path, "k1")
    assert redeem_code(tmp_path, code) == "k1"
    assert redeem_code(tmp_path, code) is None


def test_the_code_is_not_on_disk(tmp_path: Path) -> None:
    """Neither a file's name nor its content gives the code away."""
    code = issue_code(tmp_path, "k1")
    for path in (tmp_path / "run").iterdir():
        assert code not in path.name
        assert code.encode() not in path.read_bytes()
        assert path.stat().st_mode & 0o077 == 0


def test_an_old_code_is_refused_and_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A code past its ten minutes opens nothing, and the next issue takes unused old files away."""
    code = issue_code(tmp_path, "k1")
    later = time.time() + CODE_LIFETIME_S + 1
    other = issue_code(tmp_path, "k2")
    path = next(path for path in (tmp_path / "run").iterdir())
    os.utime(path, (0, 0))
    monkeypatch.setattr(time, "time", lambda: later)
    issue_code(tmp_path, "k3")
    assert not path.exists()
    assert redeem_code(tmp_path, code) is None
    assert redeem_code(tmp_path, other) is None


@pytest.mark.parametrize("code", ["", "../../FORMAT", "x" * 43 + "\n", "é" * 43, "a" * 100_000])
def test_hostile_codes_are_unknown(tmp_path: Path, code: str) -> None:
    """Text that is no code is answered like an unknown code."""
    assert redeem_code(tmp_path, code) is None


def test_a_session_ends_by_idleness_age_and_logout() -> None:
    """Idle timeout, absolute timeout and logout each make the cookie worthless."""
    clock = Clock()
    sessions = Sessions(clock)
    idle, left = sessions.start("k"), sessions.start("k")
    assert sessions.find(idle) is not None
    sessions.end(left)
    assert sessions.find(left) is None
    clock.now += IDLE_S + 1
    assert sessions.find(idle) is None
    old = sessions.start("k")
    for _ in range(int(LIFETIME_S // IDLE_S) + 1):
        clock.now += IDLE_S - 1
        sessions.find(old)
    clock.now += IDLE_S - 1
    assert sessions.find(old) is None


def test_forms_need_token_and_origin() -> None:
    """A form without the session's token, or from elsewhere, is refused."""
    check_form("token", "token", "http://a:1", "http://a:1")
    for token, origin in (("other", "http://a:1"), ("token", "http://evil"), ("token", None), ("token", "null")):
        with pytest.raises(Problem) as caught:
            check_form("token", token, origin, "http://a:1")
        assert caught.value.status == 403
    with pytest.raises(Problem):
        check_origin(None, "http://a:1")
