"""Secrets planted in what is sent never reach the journal; what an investigator needs does."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable

from support.planted import SECRETS, placements
from support.server import Server
from tallystick.journal.frame import FrameType
from tallystick.journal.reader import JournalReader
from tallystick.privacy.keys import KeyStore

KEPT = {
    "accessKeyId": "AKIAIOSFODNN7EXAMPLE",
    "commit": "da39a3ee5e6b4b0d3255bfef95601890afd80709",
    "requestID": "fe4784a8-b3b8-4dac-a763-0476f4bef6e3",
    "arn": "arn:aws:iam::123456789012:user/ann",
}
_NDJSON = {"Content-Type": "application/x-ndjson"}


def test_planted_secrets_are_in_no_line_of_the_journal(make_server: Callable[[str], Server]) -> None:
    """Thirty kinds, in values, nested, in URLs, in basic-auth headers and in raw text, through a native and a mapped source."""
    server = make_server('[sources.plain]\ntype = "http"\n').start()
    events, texts, needles = [], [], list(SECRETS.values())
    for kind, secret in SECRETS.items():
        places = placements(secret)
        needles.append(base64.b64encode(f"user:{secret}".encode()).decode())
        members = {**places, "nested": [{"in": {"side": secret}}], "password": f"plain-{kind}", **KEPT}
        events.append({"action": f"planted.{kind.replace('_', '-')}", "actor": "u", "reason": places["value"], "metadata": members})
        texts += places.values()
    assert len(SECRETS) >= 30
    server.send_ok("\n".join(map(json.dumps, events)).encode())
    for body in ("\n".join(texts), "\n".join(map(json.dumps, events))):
        answer = server.http.post("/v1/in/plain", content=body.encode(), headers=_NDJSON)
        assert answer.status_code == 200, answer.text
        assert not answer.json()["quarantined"]
    server.stop()
    text = "\n".join(journal_lines(server))
    assert text.count("planted.") >= 2 * len(SECRETS)
    assert [needle for needle in needles if needle in text] == []
    assert [kind for kind in SECRETS if f"plain-{kind}" in text] == []
    for kept in KEPT.values():
        assert text.count(kept) >= 2 * len(SECRETS)
    assert not any(needle in server.log.read_text() for needle in needles)


def journal_lines(server: Server) -> list[str]:
    """All events of the journal, decrypted."""
    reader = JournalReader(server.data, KeyStore.open(server.keys))
    position, lines = reader.oldest(), list[str]()
    while True:
        frames, position = reader.read(position)
        if not frames:
            return lines
        lines += [line.decode() for frame in frames if frame.type == FrameType.EVENTS for line in frame.lines()]
