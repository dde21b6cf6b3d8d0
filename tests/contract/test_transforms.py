"""The contract that every type of transform keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import UNSET

from contract.transforms import HARNESSES, TransformHarness
from tallystick.config import load_config
from tallystick.errors import ConfigError, EventInvalidError
from tallystick.event import Event, Source
from tallystick.event.codec import EventReader, encode_lines
from tallystick.event.stamp import Stamp
from tallystick.plugin import Transform
from tallystick.query.evaluate import compile_query
from tallystick.sources.plan import build_plans
from tallystick.transforms import TRANSFORMS, build_transform

_OURS = frozenset({"v", "tenant", "received_at", "enrichment", "source", "raw", "ingest"})
Kept = list[tuple[int, Event | EventInvalidError]] | None


@pytest.fixture(params=sorted(TRANSFORMS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def harness(kind: str, tmp_path: Path) -> TransformHarness:
    found = HARNESSES[kind]
    for name, text in found.files.items():
        (tmp_path / name).write_text(text)
    return found


def configured(tmp_path: Path, kind: str, table: str) -> Path:
    path = tmp_path / "t.toml"
    path.write_text(f'[transforms.it]\ntype = "{kind}"\n{table}\n')
    return path


@pytest.fixture
def transform(kind: str, harness: TransformHarness, tmp_path: Path) -> Transform:
    config = load_config(configured(tmp_path, kind, harness.table))
    return build_transform("it", config.transforms["it"], config, compile_query)


def read(members: list[dict[str, Any]]) -> tuple[list[Event], list[bytes]]:
    """Events as the reader gives them, each with an id of its own."""
    records = [
        msgspec.json.encode({"id": f"e{number}", "action": "a.x", "actor": "u", "occurred_at": "2026-03-04T10:00:00Z", **one})
        for number, one in enumerate(members)
    ]
    batch = EventReader().read_records(records)
    assert not batch.errors
    return list(batch.events), batch.contents


def told(kept: Kept, count: int) -> list[list[bytes | str]]:
    """What became of each of ``count`` events, comparable."""
    assert kept is not None
    found: list[list[bytes | str]] = [[] for _ in range(count)]
    for place, made in kept:
        found[place].append(made.message if isinstance(made, EventInvalidError) else msgspec.json.encode(made))
    return found


def test_what_goes_on_is_a_valid_event(transform: Transform, harness: TransformHarness) -> None:
    """Encoded and read again it is strict and valid, in the order of the batch; and something was done to it, or it is gone."""
    events, contents = read(harness.concerned)
    before = [msgspec.json.encode(event) for event in events]
    kept = transform.apply_batch(events, contents)
    assert kept is not None
    assert [place for place, _ in kept] == sorted(place for place, _ in kept)
    assert all(became != [text] for became, text in zip(told(kept, len(before)), before, strict=True))
    going = [made for _, made in kept if isinstance(made, Event)]
    assert len({event.id for event in going}) == len(going)
    stamp = Stamp("acme", "2026-03-04T10:00:00.000000Z", Source(name="s", type="http"))
    for line in encode_lines(going, stamp):
        members = {key: value for key, value in msgspec.json.decode(line, type=dict[str, msgspec.Raw]).items() if key not in _OURS}
        assert not EventReader().read(msgspec.json.encode(members), "object").errors, line


def test_the_same_batch_ends_the_same(transform: Transform, harness: TransformHarness) -> None:
    """Sent again after a crash, alone or among others, each event becomes what it became: repeats are found by id and content."""
    count = len(harness.concerned)
    first = told(transform.apply_batch(*read(harness.concerned)), count)
    assert told(transform.apply_batch(*read(harness.concerned)), count) == first
    for place in range(count):
        events, contents = read(harness.concerned)
        assert told(transform.apply_batch(events[place : place + 1], contents[place : place + 1]), 1) == [first[place]]
    mixed, contents = read([*harness.concerned, *harness.others * 50])
    assert told(transform.apply_batch(mixed, contents), len(mixed))[:count] == first


def test_events_that_it_does_not_concern_stay_as_they_are(transform: Transform, harness: TransformHarness) -> None:
    """Byte for byte, and none of them is taken away."""
    events, contents = read(harness.others)
    before = [msgspec.json.encode(event) for event in events]
    kept = transform.apply_batch(events, contents)
    after = events if kept is None else [made for _, made in kept]
    assert [msgspec.json.encode(event) for event in after] == before


def test_what_the_server_sets_is_left_to_it(transform: Transform, harness: TransformHarness) -> None:
    """No transform names a tenant, a source, a time of receipt or a number."""
    kept = transform.apply_batch(*read(harness.concerned)) or []
    for event in [made for _, made in kept if isinstance(made, Event)]:
        assert [event.v, event.tenant, event.received_at, event.source, event.producer] == [UNSET] * 5


def test_an_empty_batch_is_nothing(transform: Transform) -> None:
    """As when all was filtered before."""
    assert not transform.apply_batch([], [])


def test_wrong_settings_are_refused_with_their_line(kind: str, harness: TransformHarness, tmp_path: Path) -> None:
    """An unknown setting, and one of the wrong type."""
    for table, line in ((f"{harness.table}\nnosuch = 1", 3 + harness.table.count("\n") + 1), (harness.wrong, 3)):
        path = configured(tmp_path, kind, table)
        with pytest.raises(ConfigError) as caught:
            build_plans(load_config(path), compile_query)
        assert f"{path}:{line}" in str(caught.value)


def test_every_type_has_a_harness() -> None:
    """A new type without one is found here."""
    assert set(HARNESSES) == set(TRANSFORMS)
