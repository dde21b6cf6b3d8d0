"""Retention classes at intake: by query over the line that is stored, in the file's order, without touching anything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from tallystick.config import load_config
from tallystick.errors import ConfigError
from tallystick.event.codec import EventReader, Limits, encode_lines
from tallystick.event.model import Source
from tallystick.event.stamp import Stamp
from tallystick.sources.retention import ClassRules

from .conftest import Rig, event, ndjson

CONFIGURATION = """
[retention.classes.security]
period = "3650d"
where = "category:authentication OR action:key.*"
[retention.classes.noise]
period = "7d"
where = "action:key.list OR source.name:probe"
"""


def rules(tmp_path: Path, text: str = CONFIGURATION) -> ClassRules:
    path = tmp_path / "tallystick.toml"
    path.write_text(text)
    return ClassRules(load_config(path))


def stored(made: ClassRules, *events: dict[str, Any], source: str = "app") -> list[dict[str, Any]]:
    batch = EventReader().read(ndjson(*events), "ndjson")
    assert not batch.errors
    stamp = Stamp("acme", "2026-09-14T10:00:00.000000Z", Source(name=source, type="http"), classify=made.apply)
    return [msgspec.json.decode(line) for line in encode_lines(batch.events, stamp, said=batch.said)]


def test_the_first_class_that_matches_wins(tmp_path: Path) -> None:
    """In the order of the file; what none takes is standard, and nothing but the class differs."""
    found = stored(
        rules(tmp_path),
        event(action="user.login", category="authentication"),
        event(action="key.list"),
        event(action="page.view"),
    )
    assert [item["ingest"]["class"] for item in found] == ["security", "security", "standard"]
    assert list(found[0]["ingest"]) == list(found[2]["ingest"])


def test_a_query_sees_what_the_server_says(tmp_path: Path) -> None:
    """The line that is stored is what is asked: its source is a field like any other."""
    assert stored(rules(tmp_path), event(), source="probe")[0]["ingest"]["class"] == "noise"


def test_a_sender_cannot_choose_a_class(tmp_path: Path) -> None:
    """A member of metadata that looks like the server's is left as it was sent."""
    looks_like = {"ingest": {"class": "standard"}, "text": '"ingest":{"class":"standard"}'}
    (found,) = stored(rules(tmp_path), event(category="authentication", metadata=looks_like))
    assert found["metadata"] == looks_like
    assert found["ingest"]["class"] == "security"


def test_a_longer_class_counts_towards_the_limit(tmp_path: Path) -> None:
    """A line that fits only under the default class is refused as too long, not stored over the limit."""
    made = rules(tmp_path, "[retention.classes." + "x" * 60 + ']\nwhere = "action:*"\n')
    events = EventReader().read(ndjson(event(reason="r" * 900)), "ndjson").events
    stamp = Stamp("acme", "2026-09-14T10:00:00.000000Z", Source(name="app", type="http"))
    size = len(encode_lines(events, stamp)[0])
    with pytest.raises(Exception, match="bytes"):
        encode_lines(events, Stamp("acme", stamp.received_at, stamp.source, classify=made.apply), Limits(event_bytes=size + 10))


def test_a_bad_query_is_refused_with_its_line(tmp_path: Path) -> None:
    """As everywhere in the configuration: file, line, and a hint."""
    with pytest.raises(ConfigError) as caught:
        rules(tmp_path, '[retention.classes.x]\nperiod = "1d"\nwhere = "action:(a OR"\n')
    assert caught.value.place == f"{tmp_path}/tallystick.toml:3"


async def test_the_class_is_in_the_journal(rig: Rig, tmp_path: Path) -> None:
    """Through the whole way in: both ways of encoding a line give it its class."""
    rig.service.rules = rules(tmp_path)
    await rig.accept(body=ndjson(event(category="authentication"), event(category="data", outcome="success")))
    await rig.accept(body=ndjson(event(action="key.made", outcome="success", occurred_at="2026-09-14T10:00:00Z")))
    assert [found["ingest"]["class"] for found in rig.events("default")] == ["security", "standard", "security"]
