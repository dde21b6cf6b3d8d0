"""What mapping, redaction and enrichment cost, by CPU time, each alone on batches of 1,000: events a second that one core does."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from bench import cloudtrail
from bench.load import ndjson
from bench.run import Run
from bench.table import Row, least, most
from tallystick.config.settings import Config
from tallystick.event import Event, Source
from tallystick.event.codec import EventReader, encode_lines
from tallystick.event.stamp import Stamp, splice_lines
from tallystick.pipeline.entrance import settle_memory
from tallystick.plugin import BatchFacts, Transform
from tallystick.privacy.detectors.scanner import hyperscan
from tallystick.query.evaluate import compile_query
from tallystick.transforms import build_transform, load_mappings
from tallystick.transforms.map_result import MapOptions

_COUNT = 1_000
_SECRETS = '"password":"hunter2 is no good one","note":"ghp_a1B2c3D4e5F6a1B2c3D4e5F6a1B2c3D4e5F6 was used"'
_PEOPLE = '"mail":"ann.person@customer.example.org","card":"4111 1111 1111 1111"'

Made = tuple[Sequence[Event], Sequence[bytes], Sequence[bytes]]
"""Events, records as sent, and the events as JSON where these are at hand."""


def run(run: Run) -> None:
    """Mapping with parsing, redaction with and without findings, native events with and without redaction."""
    load_mappings()
    settle_memory()  # as the intake does when it is ready
    run.add(_mapping(run))
    run.add(*_redaction(run))
    run.add(_native(run))


def _mapping(run: Run) -> Row:
    mapping, records = load_mappings()["aws_cloudtrail"], cloudtrail.records(_COUNT)
    options = MapOptions("http", keep_raw=False)
    s = _seconds(lambda _: mapping.map_batch(records, None, options), lambda: None, run.seconds)
    kept = _seconds(lambda _: mapping.map_batch(records, None, MapOptions("http")), lambda: None, run.seconds)
    size = sum(map(len, records)) / _COUNT
    return Row(
        "mapping-cloudtrail",
        "CloudTrail records to events, parsing included",
        f"{_COUNT / s:,.0f}/s a core",
        _COUNT / s,
        f"{_COUNT / kept:,.0f}/s with the record's text kept in `raw`",
        least(60_000),
        conditions=f"records of {size:,.0f} bytes of seven kinds, batches of 1,000",
    )


def _redaction(run: Run) -> list[Row]:
    rows = []
    for key, what, make in (
        ("native", "native events of 540 bytes, each with an e-mail address of its actor", _native_events),
        ("cloudtrail", "mapped CloudTrail records", _mapped),
    ):
        for personal in ([], ["card_number", "iban", "ssn", "phone"], True):
            table = {"type": "redact", "personal": personal} if personal else None
            rules = (
                "secrets and all personal data"
                if personal is True
                else "secrets and personal data but e-mail"
                if personal
                else "secrets"
            )
            clean = _redact_s(table, make, run.seconds, "")
            found = _redact_s(table, make, run.seconds, f"{_SECRETS},{_PEOPLE}")
            name = "all" if personal is True else "personal" if personal else "secrets"
            rows.append(
                Row(
                    f"redaction-{key}-{name}",
                    f"redaction: {rules}",
                    f"{_COUNT / clean:,.0f}/s a core",
                    _COUNT / clean,
                    f"{_COUNT / found:,.0f}/s where every 50th event has four findings",
                    least(100_000),
                    conditions=what + ("" if hyperscan is not None else "; without Hyperscan"),
                )
            )
    return rows


def _redact_s(table: dict[str, Any] | None, make: Callable[[str], Made], seconds: float, planted: str) -> float:
    transform = build_transform("secrets", table, Config(), compile_query, lambda purpose: bytes(32))
    return _seconds(lambda made: _applied(transform, made), lambda: make(planted), seconds)


def _applied(transform: Transform, made: Made) -> None:
    events, contents, said = made
    transform.apply_batch(events, contents, BatchFacts("acme", said))


def _native(run: Run) -> Row:
    transform = build_transform("secrets", None, Config(), compile_query)
    body, stamp = ndjson(_COUNT), Stamp("acme", "2026-03-04T10:59:59.000000Z", Source(name="events", type="http"))

    def way(redacts: bool) -> None:
        batch = EventReader().read(body, "ndjson")
        if redacts:
            transform.apply_batch(batch.events, batch.contents, BatchFacts("acme", batch.said))
        splice_lines(batch.events, batch.said, stamp) or encode_lines(batch.events, stamp)

    without = _seconds(lambda _: way(False), lambda: None, run.seconds)
    having = _seconds(lambda _: way(True), lambda: None, run.seconds)
    share = 100 * (having / without - 1)
    return Row(
        "redaction-native-share",
        "default redaction of native events, beside reading and encoding them",
        f"{share:.1f} % more",
        share,
        f"{having / _COUNT * 1e6:.2f} µs an event with, {without / _COUNT * 1e6:.2f} µs without",
        most(15, "≤ 15 %"),
        conditions="from the received text to canonical lines, batches of 1,000",
    )


def _native_events(planted: str) -> Made:
    body = ndjson(_COUNT)
    if planted:
        lines = [line[:-2] + b"," + planted.encode() + b"}}" if n % 50 == 0 else line for n, line in enumerate(body.split(b"\n"))]
        body = b"\n".join(lines)
    batch = EventReader().read(body, "ndjson")
    return batch.events, batch.contents, batch.said


def _mapped(planted: str) -> Made:
    records = cloudtrail.records(_COUNT)
    if planted:
        records = [
            record[:-1] + b',"additionalEventData":{' + planted.encode() + b"}}" if n % 50 == 0 else record
            for n, record in enumerate(records)
        ]
    result = load_mappings()["aws_cloudtrail"].map_batch(records, None, MapOptions("http"))
    return result.events, result.contents, ()


def _seconds(work: Callable[[Any], object], make: Callable[[], Any], seconds: float) -> float:
    """CPU seconds of one call of ``work``, the median of as many as fit into ``seconds``; ``make`` gives it new input, untimed."""
    took: list[float] = []
    end = time.monotonic() + seconds / 4
    work(make())
    while time.monotonic() < end or len(took) < 5:
        made = make()
        begun = time.process_time()
        work(made)
        took.append(time.process_time() - begun)
    return sorted(took)[len(took) // 2]
