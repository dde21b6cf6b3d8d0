"""What single records must become, written by hand: `tests/integration/mapping_cases/<mapping>.toml`.

[samples]                     all sample files of the mapping, and what must come of them in numbers, counted by hand
files = ["linux_auditd/*.log"]
join = "auditd"               lines of one serial are one record, as the source `file` joins them; without it a line is a record
records = 120                 events and quarantined together
quarantined = 2
timeless = 0                  records that name no time
nameless = 0                  records that name nobody
unnamed = 0                   records that name no action

[[case]]
sample = "linux_auditd/x.log:3"     the file and which of its records; or `record`, the text itself, of our own making
absent = ["context"]                members that the event must not have
[case.event]                        members that it must have, as the canonical line has them
[case.problem]                      or the code with which it is quarantined
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from support.sample_oracle import SAMPLES
from tallystick.event import Source
from tallystick.event.codec import encode_lines
from tallystick.event.stamp import Stamp
from tallystick.plugin import Carrier
from tallystick.transforms import MapOptions, MapResult, load_mappings

FOLDER = Path(__file__).parents[1] / "integration" / "mapping_cases"
NAMES = sorted(path.stem for path in FOLDER.glob("*.toml"))
RECEIVED = "2026-03-04T10:00:00.000000Z"


@dataclass(frozen=True)
class Case:
    """One record, and what must come of it."""

    mapping: str
    place: str
    wanted: dict[str, Any]


def load(mapping: str) -> dict[str, Any]:
    """The file of one mapping."""
    return tomllib.loads((FOLDER / f"{mapping}.toml").read_text())


def cases() -> list[Case]:
    """All cases of all mappings."""
    return [
        Case(name, case.get("sample") or f"own record {number}", case)
        for name in NAMES
        for number, case in enumerate(load(name)["case"], 1)
    ]


def records(settings: dict[str, Any], name: str) -> list[bytes]:
    """The records of one sample file, cut as the source `file` would."""
    data = (SAMPLES / name).read_bytes()
    if "/streamalert_" in name:  # test cases around the records
        return [json.dumps(case["data"]).encode() for case in json.loads(data)]
    if name.endswith(".yaml"):  # test cases of a library: indented lines under a name each
        data = b"\n".join(line.strip() for line in data.split(b"\n") if line.strip().startswith(b"type="))
    lines = [line for line in data.split(b"\n") if line.strip()]
    if settings.get("join") != "auditd":
        return lines
    joined: dict[bytes, list[bytes]] = {}
    for number, line in enumerate(lines):
        _, mark, rest = line.partition(b"msg=audit(")
        joined.setdefault(rest.partition(b")")[0] if mark else str(number).encode(), []).append(line)
    return [b"\n".join(one) for one in joined.values()]


def sample_records(mapping: str) -> Iterator[tuple[str, bytes]]:
    """All records of a mapping's sample files with their places."""
    settings = load(mapping)["samples"]
    names = sorted({str(path.relative_to(SAMPLES)) for pattern in settings["files"] for path in SAMPLES.glob(pattern)})
    for name in names:
        for number, record in enumerate(records(settings, name), 1):
            yield f"{name}:{number}", record


def case_record(case: Case) -> bytes:
    """The bytes of a case's record."""
    if "record" in case.wanted:
        return str(case.wanted["record"]).encode()
    name, _, number = case.place.rpartition(":")
    return records(load(case.mapping)["samples"], name)[int(number) - 1]


def map_record(mapping: str, record: bytes) -> tuple[MapResult, list[dict[str, Any]]]:
    """What a mapping makes of one record, and the canonical lines."""
    options = MapOptions(mapping, now=NOW)
    result = load_mappings()[mapping].map_batch([record], [Carrier("192.0.2.200")], options)
    stamp = Stamp("acme", RECEIVED, Source(name=mapping, type="file"))
    return result, [json.loads(line) for line in encode_lines(result.events, stamp)]


def fits(found: Any, wanted: Any) -> bool:
    """Whether ``found`` has all that ``wanted`` says; lists have the same length."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(name in found and fits(found[name], value) for name, value in wanted.items())
    if isinstance(wanted, list):
        return isinstance(found, list) and len(found) == len(wanted) and all(map(fits, found, wanted))
    return bool(found == wanted)


NOW = datetime(2026, 3, 4, 10, 0, tzinfo=UTC)
"""The time of receipt, as `RECEIVED` writes it."""
