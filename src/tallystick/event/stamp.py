"""What the server says about each event, and the canonical line with it.

Two ways to the same bytes. The plain one sets the server fields of an event and encodes it (`set_server_fields`, then
`codec.encode_lines`). The quick one is for events that have just been encoded (by the reader, to prove that they are strict, or to
be searched for secrets) and that nobody has changed since: only the server's members are missing, they stand at three places, and
their text is the same for the whole batch but for id and salt. So a line is put together from pieces (`splice_lines`):

    {"v":1,"id":"  id  ","tenant":"…",  "occurred_at":"…",  "received_at":"…",  what else was said  ,"source":{…},"ingest":{…,"salt":"  salt  "}}

It holds where time and outcome are known and no flag is due; then it saves setting six fields and encoding, a sixth of
what an event costs. Tests hold the two ways to each other, byte for byte.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import msgspec
from msgspec import UNSET

from tallystick.event import times
from tallystick.event.entropy import random_piece
from tallystick.event.ids import IdMaker
from tallystick.event.model import Event, Ingest, Source

REPLAYED = "replayed"
"""The flag of events that were sent in again out of the quarantine."""
_FEW = 2  # events whose salts one random piece holds
_SALT_PLACE = "0123456789abcdef"
_OCCURRED = b'"occurred_at":"'
_OCCURRED_BYTES = len(_OCCURRED) + times.LENGTH + len('",')
_encode = msgspec.json.Encoder().encode
_encode_lines = msgspec.json.Encoder().encode_lines


@dataclass(frozen=True, slots=True)
class Stamp:
    """What the server says about every event of one batch.

    ``received_at`` is canonical (`times.format_utc`), one clock reading for the batch; ``config`` is the hash of the
    configuration; ``ids`` makes the missing ids, and its ``prefix`` tells them from the sender's. ``classify`` puts the class of
    each into lines that have ``retention_class``; None: it is that of all.
    """

    tenant: str
    received_at: str
    source: Source
    mapping: str | None = None
    retention_class: str = "standard"
    config: str = ""
    classify: Callable[[list[bytes]], list[bytes]] | None = None
    ids: IdMaker = field(init=False)

    def __post_init__(self) -> None:
        now_ms = int(datetime.fromisoformat(self.received_at).timestamp() * 1000)
        object.__setattr__(self, "ids", IdMaker(now_ms))


def splice_lines(events: Sequence[Event], said: Sequence[bytes], stamp: Stamp) -> list[bytes] | None:
    """The canonical lines of events of which ``said`` holds what their sender said, in canonical form; None: take the other way.

    Gives ids to those without one; no other field is set.
    """
    if len(said) != len(events):
        return None
    mapped = _mapped_ingest(events, stamp)
    claimed = [
        event.occurred_at
        for event in events
        if event.occurred_at is not UNSET
        and event.outcome is not UNSET
        and event.raw is UNSET  # it stands between the server's members
        and (event.ingest is UNSET) is (mapped is None)
    ]
    if len(claimed) != len(events) or not _all_plausible(claimed, stamp.received_at):
        return None
    _name(events, stamp)
    ingest = Ingest(mapping=stamp.mapping or UNSET, class_=stamp.retention_class, config=stamp.config, salt=_SALT_PLACE)
    before_salt, _, after_salt = _encode(ingest).rpartition(_SALT_PLACE.encode())
    head = b'{"v":1,"id":"'
    tenant = b'","tenant":%b,' % _encode(stamp.tenant)
    received = b'"received_at":%b,' % _encode(stamp.received_at)
    tail = b',"source":%b,"ingest":%b' % (_encode(stamp.source), before_salt)
    end = after_salt + b"}"
    stop = -1 if mapped is None else -len(b',"ingest":%b}' % _encode(mapped))
    salts = _salts(len(events)).encode()
    lines = []
    start = 0
    for event, text in zip(events, said, strict=True):
        at = text.index(_OCCURRED)  # the first one is the member: what stands before it, id and tenant, holds no quote
        after = at + _OCCURRED_BYTES
        name: str = event.id  # type: ignore[assignment]
        lines.append(
            b"".join(
                (head, name.encode(), tenant, text[at:after], received, text[after:stop], tail, salts[start : start + 16], end)
            )
        )
        start += 16
    return lines


def _mapped_ingest(events: Sequence[Event], stamp: Stamp) -> Ingest | None:
    """What all events have in ``ingest`` when that is the name of the batch's mapping alone; else None."""
    if stamp.mapping is None or events[0].ingest is UNSET:
        return None
    named = Ingest(mapping=stamp.mapping)
    return named if all(event.ingest == named for event in events) else None


def set_server_fields(events: Sequence[Event], stamp: Stamp) -> None:
    """Set every field of the server's in each event."""
    _name(events, stamp)
    tenant, received_at, source = stamp.tenant, stamp.received_at, stamp.source
    mapping, class_, config = stamp.mapping or UNSET, stamp.retention_class, stamp.config
    salts = _salts(len(events))
    start = 0
    for event in events:
        event.v = 1
        event.tenant = tenant
        event.received_at = received_at
        event.source = source
        if event.occurred_at is UNSET:
            event.occurred_at = received_at
        if event.outcome is UNSET:
            event.outcome = "unknown"
        salt = salts[start : start + 16]
        start += 16
        ingest = event.ingest
        if ingest is UNSET:
            event.ingest = Ingest(mapping=mapping, class_=class_, config=config, salt=salt)
        else:
            ingest.mapping = mapping if ingest.mapping is UNSET else ingest.mapping
            ingest.class_, ingest.config, ingest.salt = class_, config, salt
    _flag_implausible(events, received_at)


def _flag_implausible(events: Sequence[Event], received_at: str) -> None:
    claimed: list[str] = [event.occurred_at for event in events]  # type: ignore[misc]
    if _all_plausible(claimed, received_at):
        return
    latest = times.horizon(received_at)
    for event, text in zip(events, claimed, strict=True):
        if not times.EARLIEST <= text <= latest:
            add_flag(event, times.IMPLAUSIBLE)


def _all_plausible(claimed: Sequence[str], received_at: str) -> bool:
    """Canonical times compare as text, so one minimum and one maximum clear a whole batch."""
    return not claimed or (min(claimed) >= times.EARLIEST and max(claimed) <= times.horizon(received_at))


def _name(events: Sequence[Event], stamp: Stamp) -> None:
    unnamed = [event for event in events if event.id is UNSET]
    for event, made in zip(unnamed, stamp.ids.make(len(unnamed)), strict=True):
        event.id = made


def _salts(count: int) -> str:
    """16 hexadecimal digits for each of ``count`` events."""
    return random_piece().hex() if count <= _FEW else os.urandom(8 * count).hex()


def texts_of(events: Sequence[Event]) -> list[bytes]:
    """Each event as JSON, as it is now."""
    return _encode_lines(events)[:-1].split(b"\n") if events else []


def add_flag(event: Event, flag: str) -> None:
    """Put ``flag`` into ``ingest.flags``, once."""
    if event.ingest is UNSET:
        event.ingest = Ingest()
    flags = [] if event.ingest.flags is UNSET else event.ingest.flags
    if flag not in flags:
        event.ingest.flags = [*flags, flag]
