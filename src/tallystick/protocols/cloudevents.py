"""CloudEvents 1.0 over HTTP: structured, batched and binary mode, to our event input.

``data`` is an event as `/v1/events` takes it. The envelope fills what ``data`` leaves out and never overrides it:

| attribute | goes to |
|---|---|
| ``id`` | ``id``, when it fits; with ``source`` it names the event, so an id of another form goes to ``metadata`` |
| ``time`` | ``occurred_at`` |
| ``type`` | ``action`` |
| ``subject`` | the first target, ``{"type": "subject", "id": …}``, when data has no ``targets`` |
| ``source``, ``dataschema``, ``datacontenttype``, extensions | ``metadata.cloudevents`` |

Data with neither ``action`` nor ``actor`` is not an event of ours but some other document: it is kept as
``metadata.data``, with the source as actor ``{"type": "service"}``. Everything stays bytes: members are moved as
`msgspec.Raw`, so number texts survive and the strict check of the reader sees what was sent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import unquote

import msgspec
from msgspec import Raw

from tallystick.errors import EventInvalidError
from tallystick.event.fields import ACTION, ID
from tallystick.event.strict import check_strict, compact, require_strict

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"

_REQUIRED = ("id", "source", "specversion", "type")
_OWN_PLACE = ("id", "time", "type", "subject", "specversion", "data", "data_base64")
_SYNTAX = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_DEPTH_MAX = 33
_BYTES_MAX = 1 << 21
_ELEMENTS_MAX = 2_000_000
_JSON_TYPE = re.compile(r"(application|text)/([\w.+-]+\+)?json", re.ASCII)

_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_list = msgspec.json.Decoder(list[Raw]).decode
_decode_text = msgspec.json.Decoder(str).decode
_encode = msgspec.json.Encoder().encode

Members = dict[str, Raw]


def read(media_type: str, headers: Mapping[bytes, bytes], body: bytes) -> list[bytes]:
    """The events of one request, as records for `EventReader.read_records`. Raises EventInvalidError.

    ``media_type`` has no parameters; header names are lower-case, as ASGI gives them.
    """
    if media_type == BATCH:
        if body.count(b",") > _ELEMENTS_MAX:
            raise EventInvalidError("too many events in one batch; send smaller ones", code="too_many_events")
        try:
            elements = _decode_list(body)
        except _SYNTAX:
            raise EventInvalidError("a batch of CloudEvents is a JSON array", code="event_not_object") from None
        return [_to_event(_members(bytes(element), line), line) for line, element in enumerate(elements, 1)]
    if media_type == STRUCTURED:
        return [_to_event(_members(body, 1), 1)]
    return [_to_event(_from_headers(headers, media_type, body), 1)]


def received(media_type: str, body: bytes) -> list[bytes]:
    """The parts of a body that `read` has taken, as they were sent: one for each of its events."""
    return list(map(bytes, _decode_list(body))) if media_type == BATCH else [body]


def _members(record: bytes, line: int) -> Members:
    """The members of one object that is strict JSON throughout. Raises EventInvalidError."""
    if len(record) > _BYTES_MAX:
        raise EventInvalidError(f"the CloudEvent has {len(record)} bytes", line=line, code="event_too_large")
    try:
        members = _decode_members(record)
        require_strict(compact(record), _DEPTH_MAX)
    except EventInvalidError as error:
        raise EventInvalidError(error.message, line=line, pointer=error.pointer, code=error.code) from None
    except _SYNTAX:
        check_strict(record, _DEPTH_MAX)
        raise EventInvalidError("a CloudEvent is a JSON object", line=line, code="event_not_object") from None
    return members


def _from_headers(headers: Mapping[bytes, bytes], media_type: str, body: bytes) -> Members:
    """Binary mode: attributes in ``ce-`` headers (percent-encoded), data in the body."""
    members = {
        name[3:].decode("latin-1"): Raw(_encode(unquote(value.decode("latin-1"), errors="replace")))
        for name, value in headers.items()
        if name.startswith(b"ce-")
    }
    if not body.strip():
        return members
    if not _JSON_TYPE.fullmatch(media_type):
        raise EventInvalidError(f"data of the type {media_type or 'none'} is no event; send application/json", code="data_not_json")
    members["data"] = Raw(body)
    if media_type != "application/json":
        members["datacontenttype"] = Raw(_encode(media_type))
    return members


def _to_event(envelope: Members, line: int) -> bytes:
    for name in _REQUIRED:
        if not _text(envelope, name):
            raise EventInvalidError(f"the CloudEvent has no `{name}`", line=line, pointer="/" + name, code="field_missing")
    if _text(envelope, "specversion") != "1.0":
        raise EventInvalidError("only CloudEvents 1.0 is read", line=line, pointer="/specversion", code="field_invalid")
    if "data_base64" in envelope:
        raise EventInvalidError("binary data is no event", line=line, pointer="/data_base64", code="data_not_json")
    event, about = _take_data(envelope, line)
    _fill_id_and_action(event, about, envelope, line)
    if "time" in envelope:
        event.setdefault("occurred_at", envelope["time"])
    if "subject" in envelope and "targets" in event:
        about["subject"] = envelope["subject"]
    elif "subject" in envelope:
        event["targets"] = Raw(_encode([{"type": "subject", "id": envelope["subject"]}]))
    event["metadata"] = _with_about(event.get("metadata"), about, line)
    return _encode(event)


def _fill_id_and_action(event: Members, about: Members, envelope: Members, line: int) -> None:
    if "id" not in event:
        place = event if ID.fullmatch(_text(envelope, "id")) else about
        place["id"] = envelope["id"]
    elif _text(event, "id") != _text(envelope, "id"):
        about["id"] = envelope["id"]
    if "action" in event:
        if _text(event, "action") != _text(envelope, "type"):
            about["type"] = envelope["type"]
    elif ACTION.fullmatch(_text(envelope, "type")):
        event["action"] = envelope["type"]
    else:
        raise EventInvalidError("`type` is no action, and data has none", line=line, pointer="/type", code="field_invalid")


def _take_data(envelope: Members, line: int) -> tuple[Members, Members]:
    """The event so far, and what is to be said about its envelope in metadata."""
    about = {name: value for name, value in envelope.items() if name not in _OWN_PLACE}
    data = envelope.get("data", Raw(b"null"))
    members = _members(bytes(data), line) if bytes(data).lstrip()[:1] == b"{" else None
    if members is not None and ("action" in members or "actor" in members):
        return members, about
    event: Members = {"actor": Raw(_encode({"type": "service", "id": envelope["source"]}))}
    if bytes(data).strip() != b"null":
        event["metadata"] = Raw(_encode({"data": data}))
    return event, about


def _with_about(metadata: Raw | None, about: Members, line: int) -> Raw:
    """``metadata`` with a member ``cloudevents``; the sender's own member of that name is not overwritten."""
    if metadata is not None and not bytes(metadata).lstrip().startswith(b"{"):
        return metadata  # the reader refuses it, with its place in the event
    members = {} if metadata is None else _members(bytes(metadata), line)
    if "cloudevents" in members:
        raise EventInvalidError(
            "`cloudevents` in metadata is where the envelope goes",
            line=line,
            pointer="/data/metadata/cloudevents",
            code="field_invalid",
        )
    return Raw(_encode({**members, "cloudevents": about}))


def _text(members: Members, name: str) -> str:
    """The text of a member, or an empty one."""
    value = members.get(name)
    try:
        return "" if value is None else _decode_text(value)
    except _SYNTAX:
        return ""
