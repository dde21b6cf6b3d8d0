"""Every type of destination with every encoding that it carries, over events as hard as they come."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.event_corpus import LINES, hard_lines
from tallystick.destinations import DESTINATIONS, load_destination
from tallystick.destinations.encodings import ENCODINGS, EncodingSettings
from tallystick.plugin import Destination, Encoder

RANGE = {"origin": "audit.example.com/log/aaaaaaaaaaaaaaaa", "first_index": 3, "last_index": 9}
REQUIRED: dict[str, dict[str, Any]] = {
    "datadog": {"api_key": "a" * 32},
    "file": {"path": "events"},
    "forward": {"host": "logs.example.com"},
    "kafka": {"topic": "audit"},
    "loki": {"url": "https://logs.example.com"},
    "nats": {"stream": "audit"},
    "object_store": {"url": "lake"},
    "opensearch": {"url": "https://logs.example.com"},
    "otlp": {"url": "https://logs.example.com"},
    "splunk_hec": {"url": "https://logs.example.com", "token": "t" * 32},
    "syslog": {"host": "logs.example.com"},
    "webhook": {"url": "https://example.com/audit", "secret": "s" * 32},
}
"""Settings without a default, of each type that carries encodings."""
ONE_FORM = {"clickhouse", "pagerduty", "slack"}
"""Types that refuse every encoding but the default, since what they send is for people, or has columns of its own."""
KINDS = sorted(
    kind for kind in DESTINATIONS if issubclass(load_destination(kind).settings, EncodingSettings) and kind not in ONE_FORM
)


def pairs() -> list[tuple[str, str]]:
    found = []
    for kind in KINDS:
        carries = load_destination(kind).settings.carries  # type: ignore[attr-defined]
        found += [(kind, name) for name, encoding in sorted(ENCODINGS.items()) if encoding.shape in carries]
    return found


def make(kind: str, encoding: str, tmp_path: Any) -> Destination:
    made = load_destination(kind)
    values = dict(REQUIRED[kind])
    if kind in ("file", "object_store"):
        values = {name: str(tmp_path / value) for name, value in values.items()}
    return made("d", made.settings(**values, encoding=encoding))


@pytest.mark.parametrize(("kind", "encoding"), pairs())
async def test_a_body_is_made_of_every_event(kind: str, encoding: str, tmp_path: Any) -> None:
    """Never an error, the same bytes from another instance, and a version that says which encoding is inside."""
    lines = hard_lines()
    bodies = []
    for _ in range(2):
        destination = make(kind, encoding, tmp_path)
        bodies.append(destination.encoder.encode(lines, **RANGE))
        assert ENCODINGS[encoding].make_encoder("lines", {}).version in destination.encoder.version
        assert encoding in destination.encoder.name
        await destination.close()
    assert bodies[0] == bodies[1]
    assert bodies[0]


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> list[Encoder]:
    return [make(kind, encoding, tmp_path_factory.mktemp("d")).encoder for kind, encoding in pairs()]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(LINES, min_size=1, max_size=2))
def test_any_event_has_a_body(encoders: list[Encoder], lines: list[bytes]) -> None:
    """Whatever a sender wrote."""
    for encoder in encoders:
        assert encoder.encode(lines, **RANGE)
