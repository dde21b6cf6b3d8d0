"""Destinations of files and the webhook carry every encoding that they say they do, through a retry and a restart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from standardwebhooks import Webhook

from support.delivery import LaneBench, World, make_cut
from support.event_corpus import hard_lines
from tallystick.delivery.cut import BatchLimits
from tallystick.destinations.encodings import ENCODINGS, EncodingSettings
from tallystick.destinations.file import FileDestination, FileSettings
from tallystick.destinations.object_store import ObjectStoreDestination, ObjectStoreSettings
from tallystick.destinations.webhook import WebhookDestination, WebhookSettings
from tallystick.errors import DestinationUnavailableError
from tallystick.plugin import Answer, AnswerKind, Cut
from tallystick.privacy.keys import KeyStore
from tallystick.testing.receiver import Receiver, Request, Said


def carried(settings: type[EncodingSettings]) -> list[str]:
    return sorted(name for name, kind in ENCODINGS.items() if kind.shape in settings.carries)


@pytest.mark.parametrize("encoding", carried(FileSettings))
async def test_a_file_holds_each_cut_once(encoding: str, tmp_path: Path) -> None:
    """Two cuts, each sent twice by instances that know nothing of each other: the bytes of both, once, in order."""
    path = tmp_path / "events"
    bodies, after = [], ""
    for first in (0, 100):
        answers, cut = [], None
        lines = hard_lines()
        for _ in range(2):
            destination = FileDestination("disk", FileSettings(path=str(path), encoding=encoding))
            cut = make_cut(destination, lines, first, after=after)
            answers.append(await destination.send(cut))
            await destination.close()
        assert [answer.kind for answer in answers] == [AnswerKind.DELIVERED, AnswerKind.DELIVERED]
        assert answers[0].where == answers[1].where
        after = answers[0].where
        bodies.append(cut.body if cut else b"")
    assert path.read_bytes() == b"".join(bodies)
    assert not (tmp_path / "events.salvage").exists()


@pytest.mark.parametrize("encoding", carried(ObjectStoreSettings))
async def test_a_directory_holds_each_object_once(encoding: str, tmp_path: Path) -> None:
    """The same cut from two instances has one name and one content, and a proof beside it."""
    lines = hard_lines()
    cuts: list[Cut] = []
    for _ in range(2):
        destination = ObjectStoreDestination("lake", ObjectStoreSettings(url=str(tmp_path / "lake"), encoding=encoding))
        cuts.append(make_cut(destination, lines))
        assert (await destination.send(cuts[-1])).kind is AnswerKind.DELIVERED
        await destination.close()
    assert cuts[0].body == cuts[1].body
    found = sorted(path for path in (tmp_path / "lake").rglob("*") if path.is_file())
    assert [path.name for path in found] == [f"{cuts[0].name}{cuts[0].suffix}", f"{cuts[0].name}{cuts[0].suffix}.proof"]
    assert found[0].read_bytes() == cuts[0].body


class LosesAnswers(FileDestination):
    """Writes, and then nobody learns of it: the process ended."""

    async def send(self, cut: Cut) -> Answer:
        await super().send(cut)
        raise DestinationUnavailableError("the answer was lost")


async def test_another_encoding_while_a_cut_is_open(tmp_path: Path) -> None:
    """A cut was written but never settled, and the next start has another encoding: each event is in the file once, in the new form."""
    bench = LaneBench(tmp_path / "data", World(), KeyStore.create(tmp_path / "data.keys"))
    limits = BatchLimits(5, 1 << 20, 0.0)
    path = tmp_path / "events"
    bench.world.add(5)
    first = FileDestination("disk", FileSettings(path=str(path)))
    await bench.drain(bench.lane(first, limits=limits))
    await first.close()
    bench.world.add(7)
    before = LosesAnswers("disk", FileSettings(path=str(path)))
    lane = bench.lane(before, limits=limits)
    await bench.drain(lane, until=lambda: bool(lane.sender.reason))
    await before.close()
    assert len(path.read_bytes().splitlines()) == 10
    after = FileDestination("disk", FileSettings(path=str(path), encoding="ocsf"))
    await bench.drain(bench.lane(after, limits=limits))
    await after.close()
    events = [json.loads(line) for line in path.read_bytes().splitlines()]
    ids = [event["id"] for event in events[:5]] + [event["metadata"]["uid"] for event in events[5:]]
    assert ids == [f"acme-{index}" for index in range(12)]
    assert len((tmp_path / "events.salvage").read_bytes().splitlines()) == 5


SECRET = "whsec_c2VjcmV0IG9mIHRoZSB3ZWJob29rIHRlc3Q="


class Hook(Receiver):
    """Takes whatever the vendors' library finds well signed."""

    def answer(self, request: Request) -> Said:
        Webhook(SECRET).verify(request.body, dict(request.headers))
        return Said(204)


@pytest.mark.parametrize("encoding", carried(WebhookSettings))
async def test_a_webhook_gets_the_same_signed_body_twice(encoding: str) -> None:
    """JSON of the media type that its header says, all events in it, and a probe without any."""
    lines = hard_lines()
    with Hook() as hook:
        for _ in range(2):
            chosen = WebhookSettings(url=hook.url, secret=SECRET, allow_private=True, encoding=encoding)
            destination = WebhookDestination("hook", chosen)
            assert (await destination.send(make_cut(destination, lines))).kind is AnswerKind.DELIVERED
            await destination.close()
        assert hook.requests[0].body == hook.requests[1].body
        assert hook.requests[0].headers["webhook-id"] == hook.requests[1].headers["webhook-id"]
        probe = WebhookDestination("hook", WebhookSettings(url=hook.url, secret=SECRET, allow_private=True, encoding=encoding))
        assert (await probe.probe()).kind is AnswerKind.DELIVERED
        await probe.close()
    sent, probed = json.loads(hook.requests[0].body), json.loads(hook.requests[2].body)
    batch_type = ENCODINGS[encoding].batch_type
    assert hook.requests[0].headers["content-type"] == (batch_type or "application/json")
    assert len(sent if batch_type else sent["events"]) == len(lines)
    assert probed == ([] if batch_type else {"events": []})
