"""Destination `nats` without a server: acknowledgements, errors, settings."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import nats.errors
import pytest
from nats.aio.msg import Msg

from tallystick.config import Duration
from tallystick.destinations.nats import NatsDestinationSettings, RefusedError, answer_error
from tallystick.destinations.nats_acks import AckError, Publisher
from tallystick.destinations.nats_end import StreamUnfitError
from tallystick.errors import ConfigError, DestinationUnavailableError, TallystickError
from tallystick.plugin import AnswerKind


class FakeClient:
    """Answers each message with the next of ``answers``."""

    def __init__(self, answers: list[tuple[bytes, dict[str, str] | None]]) -> None:
        self._answers = answers
        self._take: Any = None

    def new_inbox(self) -> str:
        return "_INBOX.x"

    async def subscribe(self, subject: str, cb: Any) -> None:
        self._take = cb

    async def publish(self, subject: str, body: bytes, reply: str, headers: dict[str, str]) -> None:
        if self._answers:
            data, found = self._answers.pop(0)
            await self._take(Msg(self, subject=reply, data=data, headers=found))


async def test_every_answer_resolves() -> None:
    """A sequence, a repeat, an error, nobody there, what is no answer at all; and when the connection closes, an error."""
    answers: list[tuple[bytes, dict[str, str] | None]] = [
        (b'{"stream":"S","seq":7}', None),
        (b'{"stream":"S","seq":5,"duplicate":true}', None),
        (b'{"error":{"code":400,"err_code":10054,"description":"too large"},"stream":"S","seq":0}', None),
        (b"", {"Status": "503"}),
        (b"<html>", None),
    ]
    publisher = Publisher()
    await publisher.open(FakeClient(answers))  # type: ignore[arg-type]
    acks = [await (await publisher.publish("s", b"", {})) for _ in range(5)]
    assert [(ack.seq, ack.duplicate) for ack in acks[:2]] == [(7, False), (5, True)]
    assert [ack.error.err_code or ack.error.code for ack in acks[2:] if ack.error] == [10054, 503, 0]
    waiting = await publisher.publish("s", b"", {})
    await publisher.fail()
    with pytest.raises(nats.errors.ConnectionClosedError):
        await waiting


@pytest.mark.parametrize(
    ("error", "refusal", "kind"),
    [
        (nats.errors.ConnectionClosedError(), "", AnswerKind.RETRY),
        (TimeoutError(), "", AnswerKind.RETRY),
        (TimeoutError(), "nats: permissions violation for publish", AnswerKind.PARK),
        (TallystickError("no connection to nats://x: nats: 'Authorization Violation'"), "", AnswerKind.PARK),
        (StreamUnfitError("there is no stream"), "", AnswerKind.PARK),
        (RefusedError(AckError(503, 10077, "maximum messages exceeded")), "", AnswerKind.RETRY),
        (RefusedError(AckError(404, 10059, "stream not found")), "", AnswerKind.PARK),
        (DestinationUnavailableError("the end could not be read"), "", AnswerKind.RETRY),
        (asyncio.IncompleteReadError(b"", 1), "", AnswerKind.RETRY),
    ],
)
def test_errors_are_sorted(error: BaseException, refusal: str, kind: AnswerKind) -> None:
    """By the published table."""
    answer = answer_error(error, refusal)
    assert answer.kind is kind
    assert answer.reason


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"servers": ("nats://broker.example.com",)}, "in the clear"),
        ({"servers": ("http://127.0.0.1",)}, "no URL of a NATS server"),
        ({"user": "u", "token": "t"}, "two ways to log in"),
        ({"credentials": "none.creds"}, "there is no file"),
        ({"subject": "audit.{actor}"}, "knows only"),
        ({"encoding": "carrier_pigeon"}, "unknown encoding"),
        ({"timeout": Duration("1h")}, "ten minutes"),
    ],
)
def test_settings_that_cannot_work_are_refused(tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    """Before anything is opened."""
    with pytest.raises(ConfigError, match=words):
        NatsDestinationSettings(stream="AUDIT", **settings).rooted(tmp_path).check()
