"""The syslog source over real sockets and an intake in memory."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from support.running import Running, context_of, running, until
from tallystick.config import Duration, Size, load_config
from tallystick.event.codec import Stamp, encode_lines
from tallystick.event.model import Event, Source
from tallystick.plugin import Carrier
from tallystick.query.evaluate import compile_query
from tallystick.sources import gaps
from tallystick.sources.feed import Piece
from tallystick.sources.plan import build_plans
from tallystick.sources.syslog import KIND, SyslogDecoder, SyslogSettings, SyslogSource

MESSAGE = b'<38>1 2026-01-19T14:23:55Z web-1 sshd 44255 ID [meta sequenceId="7"] Invalid user tutu'


def settings(**changes: Any) -> SyslogSettings:
    return SyslogSettings(**({"listen": "127.0.0.1:0"} | changes))


@asynccontextmanager
async def listening(directory: Path, **changes: Any) -> AsyncIterator[Running]:
    async with running(SyslogSource(settings(**changes), context_of(directory))) as run:
        yield run


async def send(run: Running, data: bytes) -> None:
    """One TCP connection from its beginning to its end."""
    reader, writer = await asyncio.open_connection(*run.address())
    writer.write(data)
    writer.write_eof()
    try:
        await reader.read()
    except ConnectionResetError:
        pass
    writer.close()


def decode(*records: bytes, **changes: Any) -> list[dict[str, Any]]:
    """The events of some messages from 192.0.2.9, as stored."""
    decoded = SyslogDecoder(settings(**changes)).decode([Piece(list(records), 0, peer="192.0.2.9")], [])
    return [msgspec.json.decode(line) for line in lines_of(decoded.events)]


def lines_of(events: list[Event]) -> list[bytes]:
    return encode_lines(events, Stamp("acme", "2026-01-20T00:00:00.000000Z", Source(name="net", type="syslog"), mapping="syslog"))


def test_what_an_event_of_a_message_says() -> None:
    """Action, who, when, how severe; all of the message in metadata; the address it came from; the message as it was."""
    (event,) = decode(MESSAGE)
    assert (event["action"], event["actor"], event["severity"]) == ("syslog.record", {"type": "system", "id": "web-1"}, 1)
    assert (event["occurred_at"], event["context"]) == ("2026-01-19T14:23:55.000000Z", {"ip": "192.0.2.9"})
    assert event["metadata"] == {
        "facility": "auth", "severity": "info", "hostname": "web-1", "app_name": "sshd", "procid": "44255", "msgid": "ID",
        "structured_data": {"meta": {"sequenceId": "7"}}, "message": "Invalid user tutu",
    }  # fmt: skip
    assert event["raw"] == MESSAGE.decode()
    assert event["ingest"]["mapping"] == "syslog"
    assert "flags" not in event["ingest"]


def test_without_raw_only_what_was_read_is_kept() -> None:
    """As `keep_raw = false` asks."""
    assert "raw" not in decode(MESSAGE, keep_raw=False)[0]


@pytest.mark.parametrize(
    ("record", "message", "flags"),
    [
        (b"", "", ["syslog_unparsed"]),
        (b"<999>Oct 11 22:14:15 h a: m", "<999>Oct 11 22:14:15 h a: m", ["syslog_unparsed"]),
        (b"no priority at all", "no priority at all", ["syslog_unparsed"]),
        (b"<13>1 - - - - - - caf\xe9", "caf\ufffd", ["text_replaced"]),
        (b"<13>1 - - - - - - a\0b\n", "a\ufffdb", ["text_replaced"]),
        (b"<13>1 - - - - - - \x1b[2J\xe2\x80\xae \xe2\x80\x8b\r\nx", "\x1b[2J\u202e \u200b\r\nx", None),
        (b"\xff\xfe\xfd", "\ufffd" * 3, ["syslog_unparsed", "text_replaced"]),
    ],
)
def test_odd_messages_are_stored_with_a_flag(record: bytes, message: str, flags: list[str] | None) -> None:
    """Nothing is refused, control characters stay as they are, and the sender is the address where the message names none."""
    (event,) = decode(record)
    assert event["metadata"].get("message", "") == message
    assert event["ingest"].get("flags") == flags
    assert event["actor"]["id"] == "192.0.2.9"


def test_a_long_message_is_kept_once() -> None:
    """Two copies would not fit into a line."""
    (event,) = decode(b"<13>1 - - - - - - " + b"x" * 50_000)
    assert "raw" not in event
    assert event["ingest"]["flags"] == ["raw_omitted"]


def test_times_that_cannot_be_are_flagged() -> None:
    """A year-less time without a zone, and one that is no time."""
    first, second = decode(b"<13>Jan 19 14:23:55 h a: m", b"<13>1 2026-02-30T00:00:00Z h - - - - m")
    assert first["ingest"]["flags"] == ["time_zone_missing"]
    assert second["ingest"]["flags"][0] == "time_invalid"
    assert second["occurred_at"] == "2026-01-20T00:00:00.000000Z"


async def test_lines_and_counts_over_tcp(tmp_path: Path) -> None:
    """Both framings at the same port; a counted message with a line break inside is one event."""
    async with listening(tmp_path) as run:
        await send(run, b"<13>Oct 11 22:14:15 h a: one\n<13>Oct 11 22:14:15 h a: two\n")
        inner = b"<13>1 - h a - - - three\n<34>1 - evil a - - - four"
        await send(run, b"%d %s" % (len(inner), inner))
        await until(lambda: len(run.intake.events) == 3, "three messages")
        assert run.intake.contents[2] == inner
        assert [event.actor.id for event in run.intake.events] == ["h", "h", "h"]


async def test_datagrams(tmp_path: Path) -> None:
    """One datagram is one message, with the address it came from; empty and large ones too."""
    async with listening(tmp_path, transport=("udp",)) as run:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for data in (b"<13>1 - h a - - - one\n", b"", b"x" * 60_000):
                sock.sendto(data, run.address("listen_udp"))
        await until(lambda: len(run.intake.events) == 3, "three datagrams")
        assert run.intake.contents == [b"<13>1 - h a - - - one\n", b"", b"x" * 60_000]
        assert all(event.context.ip == "127.0.0.1" for event in run.intake.events if event.context)


async def test_a_hostile_count_closes_the_connection(tmp_path: Path) -> None:
    """Counted; the messages before it are stored, nothing behind it is."""
    async with listening(tmp_path) as run:
        for count in (b"99999999999 ", b"-1 ", b"0 ", b"007 ", b"12345678901234567890 ", b"12<34>"):
            await send(run, count + b"<34>1 - - - - - - x")
        await send(run, b"4 <1>a0 <34>1 - - - - - - x")
        await until(lambda: run.page["connections_refused"] == {"octet_count": 7}, "all to be counted")
        assert run.intake.contents == [b"<1>a"]


async def test_a_message_that_is_too_long_goes_to_the_quarantine(tmp_path: Path) -> None:
    """Its beginning, with its length; the connection goes on."""
    async with listening(tmp_path, record=Size("1KiB")) as run:
        await send(run, b"<1>" + b"x" * 5_000 + b"\n<1>next\n")
        await until(lambda: run.intake.events and run.intake.faults, "both")
        (fault,) = run.intake.faults
        assert (fault.code, len(fault.record)) == ("record_too_large", 1_024)
        assert "5003 bytes" in fault.message
        assert run.intake.contents == [b"<1>next"]


async def test_a_message_without_an_end_is_kept_and_flagged(tmp_path: Path) -> None:
    """The other side closed in the middle of a line."""
    async with listening(tmp_path) as run:
        await send(run, b"<13>1 - h a - - - one\n<13>1 - h a - - - tw")
        await until(lambda: len(run.intake.events) == 2, "both")
        ingest = run.intake.events[1].ingest
        assert ingest
        assert ingest.flags == ["syslog_unterminated"]


async def test_a_stop_commits_what_was_received(tmp_path: Path) -> None:
    """Messages whose commit waits when the stop comes are durable when the source has ended."""
    async with listening(tmp_path) as run:
        run.intake.is_open.clear()
        _, writer = await asyncio.open_connection(*run.address())
        writer.write(b"".join(b"<13>1 - h a - - - %d\n" % number for number in range(500)) + b"<13>cut off")
        await until(lambda: run.page["waiting_bytes"] > 500 * 128, "the messages to be received")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"last", run.address("listen_udp"))
        run.stop.set()
        await asyncio.sleep(0.05)
        assert not run.task.done()
        run.intake.is_open.set()
        await asyncio.wait_for(run.task, 5)
        assert len(run.intake.events) == 502
        writer.close()


async def test_dropped_datagrams_are_counted_and_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the journal does not move, more datagrams come than the kernel keeps: stored and dropped together are those sent."""
    monkeypatch.setattr(gaps, "INTERVAL_S", 0.05)
    changes = {"transport": ("udp",), "receive_buffer": Size("64KiB"), "waiting": Size("64KiB")}
    async with listening(tmp_path, **changes) as run:
        run.intake.is_open.clear()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for number in range(4_000):
                sock.sendto(b"<13>1 - h a - - - %d" % number, run.address("listen_udp"))
                if number % 100 == 0:
                    await asyncio.sleep(0)
        assert run.page["paused"] == 1
        await until(lambda: run.page["datagrams_dropped"], "drops to be noticed")
        run.intake.is_open.set()
        await until(lambda: len(run.intake.events) + run.page["datagrams_dropped"] == 4_000, "the sum")
        await until(
            lambda: sum(gap["count"] for gap in run.intake.gaps.values()) == run.page["datagrams_dropped"], "the gap to be recorded"
        )
        gap = next(iter(run.intake.gaps.values()))
        assert gap["reason"] == "udp_dropped"
        assert gap["since"] < gap["until"]


async def test_missing_sequence_numbers_are_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Per producer: address and hostname. What comes late is no gap."""
    monkeypatch.setattr(gaps, "INTERVAL_S", 0.02)
    async with listening(tmp_path, sequence_patience=Duration("100ms")) as run:
        lines = [(b"a", 1), (b"b", 1), (b"a", 2), (b"a", 6), (b"b", 2), (b"a", 4)]
        await send(run, b"".join(b'<13>1 - %s x - - [meta sequenceId="%d"]\n' % line for line in lines))
        await until(lambda: run.intake.gaps, "the gap")
        (gap,) = run.intake.gaps.values()
        assert (gap["reason"], gap["producer"], gap["ranges"], gap["count"]) == ("sequence", "127.0.0.1 a", [[3, 3], [5, 5]], 2)


async def test_another_mapping_reads_the_text(tmp_path: Path) -> None:
    """A product's JSON in a syslog message goes to that product's mapping, without the header."""
    async with listening(tmp_path, mapping="github_audit") as run:
        await send(run, b'<13>1 2026-01-19T14:23:55Z ghe github_audit - - - {"action":"repo.create"}\n')
        await until(lambda: run.intake.records, "the record")
        assert (run.intake.records[0].data, run.intake.records[0].peer) == (b'{"action":"repo.create"}', "127.0.0.1")


async def test_a_mapping_that_reads_headers_gets_the_whole_message(tmp_path: Path) -> None:
    """Which program speaks stands in the header, and `syslog_auth` needs it."""
    async with listening(tmp_path, mapping="syslog_auth") as run:
        await send(run, b"<38>Feb 12 14:10:21 web-1 sshd[1]: Invalid user ann from 192.0.2.1 port 5\n")
        await until(lambda: run.intake.records, "the record")
        assert run.intake.records[0].data == b"<38>Feb 12 14:10:21 web-1 sshd[1]: Invalid user ann from 192.0.2.1 port 5"


def test_records_from_the_quarantine_are_decoded_again() -> None:
    """A replay goes the same way as the message went."""
    assert KIND.own_mapping is not None
    found = KIND.own_mapping(load_config(None), settings()).map_batch(
        [MESSAGE, b"odd"], [Carrier("192.0.2.9"), Carrier("192.0.2.8")]
    )
    assert [(event.actor.id, position) for event, position in zip(found.events, found.positions, strict=True)] == [
        ("web-1", 0),
        ("192.0.2.8", 1),
    ]


def test_a_declared_syslog_source(tmp_path: Path) -> None:
    """The example of the documentation makes a plan with its own mapping; a wrong address is refused with file and line."""
    path = tmp_path / "tallystick.toml"
    path.write_text('[sources.network]\ntype = "syslog"\nlisten = "127.0.0.1:5514"\ntransport = ["tcp", "udp"]\ntenant = "acme"\n')
    plan = build_plans(load_config(path), compile_query)["network"]
    assert (plan.type, plan.tenant, plan.mapping and plan.mapping.name) == ("syslog", "acme", "syslog")
    path.write_text('[sources.network]\ntype = "syslog"\n\nlisten = "0.0.0.0:5514"\n')
    with pytest.raises(Exception, match=r"tallystick\.toml:4\)"):
        build_plans(load_config(path), compile_query)
