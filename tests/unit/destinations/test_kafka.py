"""Destination `kafka` without a broker: keys, records, errors, settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from support.delivery import make_cut, make_line
from tallystick.config import Duration
from tallystick.config.units import Size
from tallystick.destinations.kafka import KafkaDestination, KafkaDestinationSettings, answer_error
from tallystick.destinations.kafka_records import make_key, make_records
from tallystick.errors import ConfigError, DestinationUnavailableError
from tallystick.plugin import AnswerKind


def test_a_key_is_the_tenant_or_a_value_in_the_event() -> None:
    """Without a value there, the tenant again, so that a record always has a key."""
    line = make_line(3)
    assert make_key("tenant")("acme", line) == b"acme"
    assert make_key("actor.id")("acme", line) == b"u_3"
    assert make_key("metadata.team")("acme", line) == b"acme"


def test_a_place_of_its_own_and_the_same_after_a_restart() -> None:
    """What is stored with a cut is a function of the cut."""
    settings = KafkaDestinationSettings(topic="audit")
    first, second = KafkaDestination("d", settings), KafkaDestination("d", settings)
    cut = make_cut(first, [make_line(0), make_line(1)])
    assert first.place(cut) == second.place(cut)
    assert cut.name in first.place(cut)
    ids = [dict(headers)["tallystick-id"] for _, _, headers in make_records(cut, "d", "text/plain", make_key("tenant"))]
    assert ids == [b"acme-0", b"acme-1"]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (KafkaError._TIMED_OUT, AnswerKind.RETRY),
        (KafkaError._FENCED, AnswerKind.RETRY),
        (KafkaError.NOT_ENOUGH_REPLICAS, AnswerKind.RETRY),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, AnswerKind.PARK),
        (KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, AnswerKind.PARK),
        (KafkaError.MSG_SIZE_TOO_LARGE, AnswerKind.SPLIT),
    ],
)
def test_errors_are_sorted(code: int, kind: AnswerKind) -> None:
    """By the published table."""
    assert answer_error(KafkaException(KafkaError(code)), None).kind is kind


def test_a_refused_login_outweighs_the_time_out_that_it_leads_to() -> None:
    """librdkafka tells of it beside the call."""
    refusal = KafkaError(KafkaError._AUTHENTICATION)
    assert answer_error(KafkaException(KafkaError(KafkaError._TIMED_OUT)), refusal).kind is AnswerKind.PARK
    assert answer_error(DestinationUnavailableError("open"), None).kind is AnswerKind.RETRY


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"servers": ("broker.example.com:9092",)}, "in the clear"),
        ({"servers": ("broker",)}, "is no address"),
        ({"key": "no.such"}, "has no member"),
        ({"encoding": "carrier_pigeon"}, "unknown encoding"),
        ({"timeout": Duration("1h")}, "ten minutes"),
        ({"message_max": Size("10B")}, "so small a record"),
    ],
)
def test_settings_that_cannot_work_are_refused(tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    """Before anything is opened."""
    with pytest.raises(ConfigError, match=words):
        KafkaDestinationSettings(topic="audit", **settings).rooted(tmp_path).check()
