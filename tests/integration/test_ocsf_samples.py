"""Every real record, as OCSF: valid by the published schema, and seldom without a class."""

from __future__ import annotations

import json

import pytest

from support.mapping_cases import NAMES, load, sample_records
from support.ocsf_schema import faults
from support.sample_oracle import ORACLES, SAMPLES, samples
from tallystick.destinations.encodings import make_encoder, records_of
from tallystick.event import Source
from tallystick.event.codec import encode_lines
from tallystick.event.stamp import Stamp
from tallystick.plugin import Carrier
from tallystick.transforms import MapOptions, load_mappings

pytestmark = pytest.mark.skipif(not SAMPLES.is_dir(), reason="the sample records are not beside the repository")

WITH_SAMPLES = sorted({*ORACLES, *(name for name in NAMES if load(name)["samples"]["files"])})
RECORDS_MAX = 200
HOST_LOGS = {"linux_auditd", "syslog_auth", "keyvalue"}
"""Most of what they say is about processes, without what OCSF's classes for those require."""


def lines_of(mapping: str) -> list[bytes]:
    """Canonical lines of records spread over all of a mapping's samples."""
    found = [one.document for one in samples(mapping)] if mapping in ORACLES else [record for _, record in sample_records(mapping)]
    step = max(1, len(found) // RECORDS_MAX)
    stamp = Stamp("acme", "2026-03-04T10:00:00.000000Z", Source(name=mapping, type="http"))
    lines: list[bytes] = []
    for record in found[::step]:
        lines += encode_lines(load_mappings()[mapping].map_batch([record], [Carrier()], MapOptions(mapping)).events, stamp)
    return lines


@pytest.mark.parametrize("version", ["1.8", "1.5", "1.1"])
def test_every_real_record_is_valid(version: str) -> None:
    """By the class, the profiles and the version that it claims."""
    encoder = make_encoder("ocsf", options={"ocsf_version": version})
    bare = total = 0
    for mapping in WITH_SAMPLES:
        lines = lines_of(mapping)
        if not lines:
            continue
        for record in records_of(encoder.encode(lines, origin="o", first_index=0, last_index=0)):
            assert faults(record) == [], (mapping, record[:500])
            if mapping not in HOST_LOGS:
                total += 1
                bare += json.loads(record)["class_uid"] == 0
    assert total > 700
    assert bare < total / 8, f"{bare} of {total} in Base Event"
