"""Audit records of the OpenTelemetry audit-logging draft: what each must have, and its canonical form.

An audit record is an OTLP log record with certain attributes. Its canonical form is one JSON object in RFC 8785 (JCS):

    {"attributes":{…},"body":…,"event_name":"…","observed_timestamp":"…","span_id":"…","timestamp":"…","trace_id":"…"}

with only those members that are set. Times are nanoseconds as decimal text; ids of traces and spans lower-case hexadecimal. A
value is an object with one member named by its type (`{"stringValue":"a"}`, `{"boolValue":true}`, `{"doubleValue":1.5}`,
`{"bytesValue":"<base64>"}`); a list is an array and a map an object of such values; nothing is null. The severity is left out.
So no two records that differ have the same bytes. Two texts describe this form and differ in how an integer is written:

    `DRAFT`       `{"intValue":5}`, as text only past 2^53: the draft's data model. Our `integrity_hash` is over this one
    `COLLECTOR`   `{"intValue":"5"}` always, and a body that is text as plain text: the collector's signing processor

A signature is over the form without the attributes `audit.integrity.*`; which of the two its maker followed shows when it fits.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
import rfc8785

from tallystick.errors import EventInvalidError
from tallystick.event.fields import ID

INTEGRITY = "audit.integrity."
_EXACT_MAX = 2**53
_ACTOR_TYPES = ("user", "service", "system", "agent", "anonymous")
_OUTCOMES = ("success", "failure", "unknown", "denied")
_DOUBLES = ("NaN", "Infinity", "-Infinity")

_decode = msgspec.json.Decoder().decode


class Form(NamedTuple):
    """How a canonical form writes integers, and a body that is text."""

    has_text_integers: bool
    has_plain_body: bool


DRAFT = Form(has_text_integers=False, has_plain_body=False)
COLLECTOR = Form(has_text_integers=True, has_plain_body=True)
FORMS = (DRAFT, COLLECTOR, Form(has_text_integers=True, has_plain_body=False))
"""What a signature may be over, in the order in which they are tried."""


class AuditRecord(NamedTuple):
    """One record out of a request in OTLP's JSON form. Attributes are tagged values, those of ``resource`` too."""

    record: Mapping[str, Any]
    attributes: Mapping[str, Mapping[str, Any]]
    resource: Mapping[str, Mapping[str, Any]]

    @classmethod
    def of(cls, request: bytes) -> AuditRecord:
        """The record of a request that holds one (`otlp.LogGroup.as_request`)."""
        logs = _decode(request)["resourceLogs"][0]
        record = logs["scopeLogs"][0]["logRecords"][0]
        return cls(record, _by_key(record.get("attributes")), _by_key((logs.get("resource") or {}).get("attributes")))

    @property
    def id(self) -> str:
        """`audit.record.id`; empty when there is none."""
        return self.text("audit.record.id")

    def text(self, name: str) -> str:
        """An attribute that is text; empty when it is not there or is none."""
        return _text(self.attributes.get(name))

    def resource_text(self, name: str) -> str:
        """The same of the resource."""
        return _text(self.resource.get(name))

    def canonical(self, form: Form = DRAFT, *, is_signed_part: bool = False) -> bytes:
        """The canonical form; ``is_signed_part``: without the attributes that carry the proof."""
        record = self.record
        members = {
            "timestamp": _decimal(record.get("timeUnixNano")),
            "observed_timestamp": _decimal(record.get("observedTimeUnixNano")),
            "event_name": record.get("eventName"),
            "body": _body(record.get("body"), form),
            "trace_id": _hexadecimal(record.get("traceId")),
            "span_id": _hexadecimal(record.get("spanId")),
            "attributes": {
                key: _canonical_value(value, form)
                for key, value in self.attributes.items()
                if not (is_signed_part and key.startswith(INTEGRITY))
            },
        }
        return rfc8785.dumps({name: value for name, value in members.items() if value not in (None, "", {})})

    def require(self) -> None:
        """Raise EventInvalidError, with the field at fault, unless the record has all that the draft asks for."""
        if not _decimal(self.record.get("timeUnixNano")):
            raise _missing("Timestamp")
        if not self.record.get("eventName"):
            raise _missing("EventName")
        for name in ("audit.record.id", "audit.actor.id", "audit.actor.type", "audit.action", "audit.outcome"):
            if not self.text(name):
                raise _missing(name)
        if not ID.fullmatch(self.id):
            raise _invalid("audit.record.id", "must be 1 to 128 characters of A-Z a-z 0-9 . _ : -")
        for name, words in (("audit.actor.type", _ACTOR_TYPES), ("audit.outcome", _OUTCOMES)):
            if self.text(name) not in words:
                raise _invalid(name, f"must be one of {', '.join(words)}")


def integrity_hash(canonical: bytes) -> str:
    """SHA-256 of the canonical form, in hexadecimal: what the draft calls `IntegrityHash`."""
    return hashlib.sha256(canonical).hexdigest()


class Sequence(NamedTuple):
    """A record's place in its producer's chain. ``number`` is 0 where only the hash was given."""

    stream: str
    number: int
    previous_hash: str
    is_end: bool

    @classmethod
    def of(cls, record: AuditRecord) -> Sequence | None:
        """The sequence attributes; None when the record has no place in a named stream."""
        stream = record.text("audit.sequence.stream_id")
        number = record.attributes.get("audit.sequence.number", {}).get("intValue")
        previous = record.text("audit.sequence.previous_hash")
        if not stream or (number is None and not previous):
            return None
        is_end = record.attributes.get("audit.sequence.end", {}).get("boolValue") is True
        return cls(stream, int(number or 0), previous, is_end)


def _by_key(pairs: Any) -> dict[str, Mapping[str, Any]]:
    return {pair.get("key") or "": pair.get("value") or {} for pair in pairs or ()}


def _text(value: Mapping[str, Any] | None) -> str:
    text = value.get("stringValue") if value else None
    return text if isinstance(text, str) else ""


def _decimal(value: Any) -> str:
    return "" if value in (None, 0, "0", "") else str(int(value))


def _hexadecimal(value: Any) -> str:
    return value.lower() if isinstance(value, str) and value.strip("0") else ""


def _body(value: Mapping[str, Any] | None, form: Form) -> Any:
    if value is None:
        return None
    text = value.get("stringValue")
    return text if form.has_plain_body and isinstance(text, str) else _canonical_value(value, form)


def _canonical_value(value: Mapping[str, Any] | None, form: Form) -> Any:
    """One tagged value of OTLP's JSON, in whatever of its spellings, in the one spelling of the canonical form."""
    kind: str
    given: Any
    kind, given = next(((name, one) for name, one in (value or {}).items() if one is not None), ("", None))
    match kind:
        case "stringValue" | "boolValue":
            return {kind: given}
        case "intValue":
            number = int(given)
            if form.has_text_integers or abs(number) > _EXACT_MAX:
                return {kind: str(number)}
            return {kind: float(number) if abs(number) == _EXACT_MAX else number}  # the library takes integers below 2^53
        case "doubleValue":
            return {kind: _double(given)}
        case "bytesValue":
            standard = str(given).replace("-", "+").replace("_", "/").rstrip("=")
            return {kind: base64.b64encode(base64.b64decode(standard + "=" * (-len(standard) % 4))).decode()}
        case "arrayValue":
            return [_canonical_value(one, form) for one in given.get("values") or ()]
        case "kvlistValue":
            pairs = given.get("values") or ()
            return {pair.get("key") or "": _canonical_value(pair.get("value"), form) for pair in pairs}
    return None


def _double(given: Any) -> float | str:
    if isinstance(given, str) and given in _DOUBLES:
        return given
    number = float(given)
    return number if math.isfinite(number) else "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"


def _missing(name: str) -> EventInvalidError:
    return EventInvalidError(f"`{name}` is missing", pointer=f"/{name}", code="field_missing")


def _invalid(name: str, rule: str) -> EventInvalidError:
    return EventInvalidError(f"`{name}` {rule}", pointer=f"/{name}", code="field_invalid")
