"""Verification of a server over what it serves: everything is recomputed, every lie is named with its address."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tallystick.errors import IntegrityError, NotFoundError, TerminalError
from tallystick.evidence.checkpoint import read_checkpoint
from tallystick.evidence.entry import build_entry, large_text, lost_text
from tallystick.evidence.verify import Report
from unit.evidence.served_kit import ACCOUNT, HANDLE, SERVER, URL, FakeServer

SALT = bytes(16)


def events(count: int) -> list[bytes]:
    return [b'{"v":1,"action":"a.b","n":%d}' % number for number in range(count)]


def account(**fields: Any) -> bytes:
    return build_entry(str(fields.pop("kind")), SALT, fields)


@pytest.fixture
def server() -> FakeServer:
    """700 events of one tenant, quoted at 40, 300 and 600; an account log; a root log that quotes them."""
    made = FakeServer()
    lines, entries = events(700), [account(kind="open", who="ana")]
    made.add("policy", at="2026-01-01T00:00:00Z", classes={"standard": "1d"})
    made.add("heartbeat", at="2026-01-01T00:00:00Z")
    for size in (40, 300, 600):
        made.quote(HANDLE, lines[:size])
    made.quote(ACCOUNT, entries)
    made.add("heartbeat", at="2026-01-02T00:00:00Z")
    made.publish(HANDLE, lines)
    made.publish(ACCOUNT, entries)
    made.publish_root()
    return made


def remembered(server: FakeServer, size: int) -> str:
    return server.note("root", server.root_entries[:size])


def problems(report: Report) -> list[tuple[str, str]]:
    assert report.status == 4, report
    return [(problem.message, problem.place) for problem in report.problems]


def change(server: FakeServer, path: str, at: int = 40) -> None:
    body = server.paths[path]
    assert isinstance(body, bytes)
    server.paths[path] = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]


def test_an_honest_server_holds(server: FakeServer) -> None:
    """With key and remembered head: status 0, all events behind their leaves, six steps told."""
    told: list[tuple[str, int, int]] = []
    report = server.verify(remembered=remembered(server, 3), progress=lambda *step: told.append(step))
    assert (report.status, report.events, report.tier) == (0, 700, "remembered head"), report
    assert [step.number for step in report.steps] == list(range(1, 7))
    assert all(done <= total for _, done, total in told)
    assert [title for title, _, _ in told][-1] == "absences"


@pytest.mark.parametrize(("changes", "word"), [({"public_key": None}, "signer"), ({"remembered": None}, "freshness")])
def test_what_the_caller_does_not_bring_is_not_proven(server: FakeServer, changes: dict[str, Any], word: str) -> None:
    """No key, no head: consistent, status 5, and what is not proven is named."""
    report = server.verify(**{"remembered": remembered(server, 3), **changes})
    assert (report.status, [text.partition(":")[0] for text in report.not_proven]) == (5, [word]), report


@pytest.mark.parametrize(
    "path",
    [f"/log/{HANDLE}/tile/0/000", f"/log/{HANDLE}/tile/0/001", f"/log/{HANDLE}/tile/0/002.p/188", f"/log/{HANDLE}/tile/1/000.p/2",
     f"/log/{HANDLE}/tile/entries/001", f"/log/{HANDLE}/tile/entries/002.p/188", f"/log/{ACCOUNT}/tile/0/000.p/1",
     f"/log/{ACCOUNT}/tile/entries/000.p/1", "/log/root/tile/0/000.p/9", "/log/root/tile/entries/000.p/9"],
)  # fmt: skip
def test_one_changed_bit_is_named_with_its_address(server: FakeServer, path: str) -> None:
    """In any tile or bundle of any log: the report names exactly that resource."""
    change(server, path, at=20)
    found = problems(server.verify())
    assert any(f"{URL}{path}" in place or path in place for _, place in found), found


def test_behind_a_changed_tile_the_rest_is_still_checked(server: FakeServer) -> None:
    """Two changed tiles of one log are both named, and the entries of the others still count."""
    change(server, f"/log/{HANDLE}/tile/0/000")
    change(server, f"/log/{HANDLE}/tile/0/001")
    report = server.verify()
    assert [problem.place for problem in report.problems] == [f"{URL}/log/{HANDLE}/tile/0/00{number}" for number in (0, 1)]
    assert report.events == 188


@pytest.mark.parametrize("name", ["root", HANDLE, ACCOUNT])
@pytest.mark.parametrize("at", [50, 100, 150])
def test_a_changed_head_is_named(server: FakeServer, name: str, at: int) -> None:
    """One changed byte of any head, in its text or its signature, is found at its address."""
    change(server, f"/log/{name}/checkpoint", at)
    assert any(f"{URL}/log/{name}" in place for _, place in problems(server.verify()))


def test_a_forked_log_is_found_by_the_quoted_heads(server: FakeServer) -> None:
    """Another history, signed with the right key and consistent in itself, does not extend what the root log quotes."""
    server.publish(HANDLE, [b'{"other":1}', *events(700)[1:]])
    assert problems(server.verify()) == [
        ("the log does not extend the head over 40 leaves that the root log quotes", f"{URL}/log/{HANDLE}")
    ]
    server.publish(HANDLE, [*events(500), b'{"other":1}', *events(700)[501:]])
    assert "over 600 leaves" in problems(server.verify())[0][0]


def test_a_cut_log_is_found_by_the_quoted_heads(server: FakeServer) -> None:
    """An older head, rightly signed, is smaller than the root log says."""
    server.publish(HANDLE, events(300))
    message, place = problems(server.verify())[0]
    assert "the log is cut: the root log quotes a head over 600 leaves, the server shows 300" in message
    assert place == f"{URL}/log/{HANDLE}/checkpoint"


def test_an_older_server_is_found_by_the_remembered_head(server: FakeServer) -> None:
    """Rolled back as a whole it is consistent, and freshness says so; the remembered head finds it."""
    head = remembered(server, 8)
    server.root_entries = server.root_entries[:7]
    server.publish_root()
    assert server.verify().not_proven[0].startswith("freshness")
    assert "older than what was signed: it ends at 7, a head over 8" in problems(server.verify(remembered=head))[0][0]


def test_a_forked_root_log_is_found_by_the_remembered_head(server: FakeServer) -> None:
    """A root log with another entry under a head seen earlier does not extend it."""
    head = remembered(server, 4)
    server.root_entries[1] = build_entry("heartbeat", SALT, {"at": "2026-01-01T00:00:01Z"})
    server.publish_root()
    assert "does not extend the remembered head over 4 entries" in problems(server.verify(remembered=head))[0][0]
    assert server.verify(remembered=head).tier == "signer"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda head: head.replace("root\n4", "root\n3"), "does not belong to the text"),
        (lambda head: "nonsense", "no signed note"),
        (lambda head: FakeServer().note("root", [b"x"]), "no known key signed"),
    ],
)
def test_a_remembered_head_that_does_not_hold(server: FakeServer, spoil: Callable[[str], str], words: str) -> None:
    """Changed, no head at all, or signed by somebody else: a problem of the second step."""
    report = server.verify(remembered=spoil(remembered(server, 4)))
    assert (report.problems[0].step, report.problems[0].place) == (2, "the remembered head")
    assert words in report.problems[0].message


def test_another_key_opens_nothing(server: FakeServer) -> None:
    """With a public key that did not sign, the head does not hold; what is served is checked all the same."""
    report = server.verify(public_key=FakeServer().public_key)
    assert "a head does not hold" in problems(report)[0][0]
    assert report.events == 700


def test_what_the_key_may_not_see_is_not_proven(server: FakeServer) -> None:
    """Hidden entries and hidden logs are named as not checked, never passed over, and are no problem either."""
    refused = TerminalError("this key has no permission to read")
    for path in list(server.paths):
        if path.startswith(f"/log/{HANDLE}/tile/entries"):
            server.paths[path] = refused
    server.paths[f"/log/{ACCOUNT}/checkpoint"] = NotFoundError("no such log")
    report = server.verify(remembered=remembered(server, 9))
    assert (report.status, report.events) == (5, 0), report
    assert [text.partition(":")[0] for text in report.not_proven] == [f"{SERVER}/log/{ACCOUNT}", "content"]


def test_a_hidden_root_log_hides_the_others(server: FakeServer) -> None:
    """Without the root log's entries neither logs nor keys are known; only its tiles are checked."""
    server.paths["/log/root/tile/entries/000.p/9"] = TerminalError("this key is bound to tenants")
    report = server.verify(remembered=remembered(server, 9))
    assert report.status == 5
    assert any("root are not shown" in text for text in report.not_proven)
    assert report.steps[2].detail == "0 of 0 logs that the root log quotes"


def test_a_root_log_that_quotes_nothing_proves_nothing(server: FakeServer) -> None:
    """In its first seconds a server has a root log and nothing in it: consistent, and said so, never a pass."""
    server.root_entries = server.root_entries[:2]
    server.publish_root()
    report = server.verify(remembered=remembered(server, 2))
    assert (report.status, report.events) == (5, 0)
    assert "quotes no other log yet" in report.not_proven[0]


def test_no_root_head_is_an_error(server: FakeServer) -> None:
    """A server that shows no root head at all cannot be verified: that is no verdict."""
    server.paths["/log/root/checkpoint"] = TerminalError("this needs a key")
    with pytest.raises(TerminalError, match="needs a key"):
        server.verify()


def test_a_signed_tile_that_is_owed_and_not_served(server: FakeServer) -> None:
    """A tile, a bundle or a head that the server fails to give is a problem, not a gap in the report."""
    for path in (f"/log/{HANDLE}/tile/0/001", f"/log/{HANDLE}/tile/entries/001", f"/log/{HANDLE}/checkpoint"):
        kept = server.paths[path]
        server.paths[path] = IntegrityError("the server answers 500")
        assert any(path in place for _, place in problems(server.verify()))
        server.paths[path] = kept


def test_entries_that_are_gone_need_an_excuse(server: FakeServer) -> None:
    """Absent events fail without an entry that explains them, and are listed when a plausible expiry does."""
    path = f"/log/{HANDLE}/tile/entries/000"
    server.paths[path] = NotFoundError("the log holds no such entry (any more)")
    assert "no line is served for the indexes 0 to 255" in problems(server.verify())[0][0]
    expiry = {"at": "2026-01-03T00:00:00Z", "policy": 0, "class": "standard", "period": "1d", "ranges": [[0, 256]]}
    entries = [account(kind="open", who="ana"), account(kind="expiry", **expiry)]
    server.add("heartbeat", at="2026-01-04T00:00:00Z")
    server.quote(ACCOUNT, entries)
    server.publish(ACCOUNT, entries)
    server.publish_root()
    report = server.verify(remembered=remembered(server, 9))
    assert (report.status, report.excused) == (0, [f"{SERVER}/log/{HANDLE}: indexes 0 to 255 expired"]), report


def test_lost_and_long_events_are_told(server: FakeServer) -> None:
    """A declared loss fails for good; a long event counts, but its line was not read."""
    lines = [*events(700), large_text(b"x" * 70_000)]
    server.publish(HANDLE, lines)
    report = server.verify(remembered=remembered(server, 9))
    assert (report.status, report.events) == (5, 701)
    assert "1 long events" in report.not_proven[0]
    server.publish(HANDLE, [*lines, lost_text(701), lost_text(702)])
    report = server.verify(remembered=remembered(server, 9))
    assert "2 events were lost by the disk and declared so: indexes 701 to 702" in problems(report)[0][0]
    assert report.events == 701


@pytest.mark.parametrize("body", [b"", b"\x00", b"\xff\xff" + b"x" * 100])
def test_a_malformed_bundle_is_named(server: FakeServer, body: bytes) -> None:
    """Bytes that are no bundle, too few or too many, are a problem with an address."""
    path = f"/log/{HANDLE}/tile/entries/001"
    server.paths[path] = body
    assert problems(server.verify()) == [("a bundle of entries is not 256 whole entries", f"{URL}{path}")]


def test_a_head_of_another_log_is_refused(server: FakeServer) -> None:
    """A server that answers for one log with the head of another does not get away with it."""
    server.paths[f"/log/{ACCOUNT}/checkpoint"] = server.paths[f"/log/{HANDLE}/checkpoint"]
    assert any(f"{URL}/log/{ACCOUNT}/checkpoint" in place for _, place in problems(server.verify()))


def test_each_resource_is_read_about_once(server: FakeServer) -> None:
    """A verification reads every resource once, and each log's first bundle a second time to see whether it may."""
    server.asked = 0
    server.verify()
    assert server.asked == len(server.paths) + 3
    head = server.paths["/log/root/checkpoint"]
    assert isinstance(head, bytes)
    assert read_checkpoint(head.decode()).size == 9
