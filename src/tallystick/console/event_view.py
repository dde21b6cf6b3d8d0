"""An event as the console shows it: the row of the list and the facts of the panel. Pure; gives text, never markup."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec

from tallystick.console.sentence import Part, build_sentence, quote_value
from tallystick.console.text import shorten_counted

MARKS = {"success": "", "failure": "!", "denied": "✗", "unknown": "·"}
_SKEW_S = 2.0
_TEXT_MAX = 2_000
_VALUE_MAX = 20_000


@dataclass(frozen=True, slots=True)
class EventView:
    """One row."""

    id: str
    tenant: str
    at: str
    exact: str
    when: str
    day: str
    day_name: str
    outcome: str
    mark: str
    action: str
    text: str
    parts: list[Part]


def view_event(event: dict[str, Any], now: datetime) -> EventView:
    """The row of a decoded event, with its time relative to ``now`` when it is less than an hour old."""
    at = str(event.get("occurred_at") or event.get("received_at") or "")
    moment = _read_moment(at)
    parts = build_sentence(event)
    outcome = str(event.get("outcome", "unknown"))
    return EventView(
        id=str(event.get("id", "")),
        tenant=str(event.get("tenant", "")),
        at=at,
        exact=at.replace("T", " ").replace("Z", " UTC"),
        when=_when(moment, now) if moment else at[:19],
        day=f"{moment:%Y-%m-%d}" if moment else "",
        day_name=_day_name(moment, now) if moment else "",
        outcome=outcome,
        mark=MARKS.get(outcome, "·"),
        action=str(event.get("action", "")),
        text="".join(part.text for part in parts),
        parts=parts,
    )


def _read_moment(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _when(moment: datetime, now: datetime) -> str:
    age = (now - moment).total_seconds()
    if -5 <= age < 60:
        return "now"
    if 0 <= age < 3_600:
        return f"{int(age // 60)} min"
    return f"{moment:%H:%M:%S}"


def _day_name(moment: datetime, now: datetime) -> str:
    days = (now.date() - moment.date()).days
    name = f"{moment:%A} {moment.day} {moment:%B}" + ("" if moment.year == now.year else f" {moment.year}")
    return {0: f"Today, {name}", 1: f"Yesterday, {name}"}.get(days, name)


@dataclass(slots=True)
class Facts:
    """Names and values in order; a value is a list of parts, so that single words can be links."""

    rows: list[tuple[str, list[Part]]] = field(default_factory=list)

    def add(self, name: str, *parts: Part | None) -> None:
        kept = [part for part in parts if part is not None and part.text]
        if kept:
            self.rows.append((name, kept))


def summary_facts(event: dict[str, Any]) -> list[tuple[str, list[Part]]]:
    """Who, as whom, what, to what, from where, why, when."""
    facts = Facts()
    actor = event.get("actor") or {}
    facts.add("who", *_named(actor, "actor.id"))
    facts.add("with", _plain(", ".join(map(str, actor.get("roles") or []))), _mono(actor.get("credential"), " key "))
    for delegate in event.get("on_behalf_of") or []:
        facts.add("as" if delegate.get("mode") == "impersonation" else "for", *_named(delegate, "on_behalf_of.id"))
    facts.add("what", _link(event.get("action"), "action"), _plain(event.get("category"), " · "))
    for place, target in enumerate(event.get("targets") or []):
        facts.add("to" if place == 0 else "in", *_named(target, "target.id"), _plain(target.get("owner"), ", owner "))
    facts.add("outcome", _link(event.get("outcome"), "outcome"))
    facts.add("why", _plain(event.get("reason")))
    context = event.get("context") or {}
    facts.add("where", _link(context.get("ip"), "ip"), _plain(context.get("location"), " · "))
    _add_times(facts, event)
    flags = (event.get("ingest") or {}).get("flags") or []
    facts.add("flags", _plain(", ".join(map(str, flags))))
    return facts.rows


def context_facts(event: dict[str, Any]) -> list[tuple[str, list[Part]]]:
    """Context, metadata, enrichment, and where the event came from."""
    facts = Facts()
    context = event.get("context") or {}
    for name in ("session_id", "request_id", "trace_id", "span_id"):
        facts.add(name.replace("_", " "), _link(context.get(name), f"context.{name}"))
    facts.add("user agent", _plain(context.get("user_agent")))
    for section in ("metadata", "enrichment"):
        values = event.get(section)
        for name, value in values.items() if isinstance(values, dict) else ():
            facts.add(shorten_counted(name, 60), _mono(value if isinstance(value, str) else _json(value)))
    source, ingest = event.get("source") or {}, event.get("ingest") or {}
    facts.add(
        "source",
        _link(source.get("name"), "source.name"),
        _plain(source.get("type"), " · "),
        _mono(source.get("credential"), " key "),
    )
    facts.add("mapping", _plain(ingest.get("mapping")))
    facts.add("kept as", _plain(ingest.get("class")))
    for item in ingest.get("redactions") or []:
        facts.add("redacted", _mono(item.get("path")), _plain(item.get("action"), ": "), _plain(item.get("rule"), " by the rule "))
    producer = event.get("producer") or {}
    if producer:
        facts.add("producer", _plain(f"{producer.get('id')}, epoch {producer.get('epoch')}, number {producer.get('seq')}"))
    facts.add("event id", _mono(event.get("id")))
    return facts.rows


@dataclass(frozen=True, slots=True)
class ChangeView:
    op: str
    path: str
    before: str | None
    after: str | None
    masked: bool
    rule: str


def view_changes(event: dict[str, Any]) -> list[ChangeView]:
    """The field diff; masked values are named as masked, with the rule that did it."""
    rules = {str(item.get("path", "")): str(item.get("rule", "")) for item in (event.get("ingest") or {}).get("redactions") or []}
    return [
        ChangeView(
            op=str(change.get("op", "")),
            path=shorten_counted(change.get("path", ""), _TEXT_MAX),
            before=_value(change, "before"),
            after=_value(change, "after"),
            masked=bool(change.get("masked")) or any(path.startswith(f"/changes/{place}/") for path in rules),
            rule=next((rule for path, rule in rules.items() if path.startswith(f"/changes/{place}/")), ""),
        )
        for place, change in enumerate(event.get("changes") or [])
    ]


def _add_times(facts: Facts, event: dict[str, Any]) -> None:
    occurred, received = str(event.get("occurred_at", "")), str(event.get("received_at", ""))
    facts.add("when", Part(occurred, kind="time"))
    first, second = _read_moment(occurred), _read_moment(received)
    if first is None or second is None or abs((second - first).total_seconds()) > _SKEW_S:
        facts.add("received", Part(received, kind="time"))


def _named(thing: dict[str, Any], path: str) -> list[Part | None]:
    """Name, id and type of an actor or target, the id a link."""
    name, email, id_ = thing.get("name"), thing.get("email"), str(thing.get("id", ""))
    lead = f"{shorten_counted(name, 120)} · " if name and name != id_ else ""
    return [_plain(lead), _link(id_, path), _plain(email, " · ") if email != id_ else None, _plain(thing.get("type"), " · ")]


def _plain(value: Any, lead: str = "") -> Part | None:
    return Part(f"{lead}{shorten_counted(value, _TEXT_MAX)}") if value not in (None, "") else None


def _mono(value: Any, lead: str = "") -> Part | None:
    return Part(f"{lead}{shorten_counted(value, _TEXT_MAX)}", kind="mono") if value not in (None, "") else None


def _link(value: Any, path: str) -> Part | None:
    return Part(shorten_counted(value, 200), f"{path}:{quote_value(str(value))}") if value not in (None, "") else None


def _value(change: dict[str, Any], side: str) -> str | None:
    if side not in change:
        return None
    value = change[side]
    return shorten_counted(value if isinstance(value, str) else _json(value), _VALUE_MAX)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
