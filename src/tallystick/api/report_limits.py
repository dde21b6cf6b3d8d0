"""What a report cannot show, computed from the report itself: pure. A report that is silent about its limits claims too much."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tallystick.config import Duration
from tallystick.reports.framework import Framework

Limit = tuple[str, str]
_CLOCK_MS = 1_000


def find_limits(framework: Framework, controls: Sequence[dict[str, Any]], parts: dict[str, Any], end: str) -> list[dict[str, str]]:
    """(code, sentence) of each limit, the most general first."""
    found = [
        *_general(end),
        *_log(parts["log"]),
        *_events(controls),
        *_gaps(parts["gaps"]),
        *_delivery(parts["deliveries"]),
        *_retention(framework, parts["retention"]),
        *_practice(parts),
    ]
    return [{"code": code, "text": text} for code, text in found]


def _general(end: str) -> Iterator[Limit]:
    yield (
        "own_word",
        (
            "This report was made by the server that it is about. Each sample and its proof can be checked without it; counts can be "
            "checked with `tallystick verify` and an export only."
        ),
    )
    yield (
        "design",
        (
            "It shows what happened, as far as it was sent here. Whether a control is designed well, and whether a system sends "
            "all that it should, it cannot show."
        ),
    )
    yield (
        "claimed_time",
        f"The period goes by the time that each event claims (`occurred_at`), up to {end}; an event that comes later with a time inside it is not counted.",
    )


def _log(log: dict[str, Any]) -> Iterator[Limit]:
    if not log["root"]["cosigned_by"]:
        yield (
            "not_witnessed",
            (
                "Freshness is not proven: no witness cosigned the root head. That nothing was cut off or replaced as a whole can be seen "
                "only by who kept an earlier head or a receipt (`tallystick verify --heads`)."
            ),
        )
    if not log["anchors"]:
        yield (
            "not_time_stamped",
            "No time stamp of an outside authority is in the root log: that events existed at their time rests on this server's clock.",
        )
    if not log["heartbeats"]:
        yield "no_heartbeats", "The root log has no heartbeat in the period: the server was not running, or is younger than that."
    yield (
        "clock",
        f"Clocks: the wall clock moved by at most {log['clock_offset_ms_max']} ms against the monotonic clock between heartbeats"
        + (", which is more than a second." if log["clock_offset_ms_max"] > _CLOCK_MS else ".")
        + " That it agrees with an outside source of time is not measured.",
    )
    if log["odd_times"]:
        yield (
            "odd_times",
            f"{log['odd_times']:,} events have a time that was missing, without a zone, or implausible (`ingest.flags`).",
        )


def _events(controls: Sequence[dict[str, Any]]) -> Iterator[Limit]:
    silent = [one["id"] for one in controls if one["count"] == 0]
    if silent:
        yield (
            "no_events",
            f"No event answers {_list(silent)}. That nothing happened and that nothing was recorded look alike here.",
        )
    partial = [one["id"] for one in controls if one["count"] is None]
    if partial:
        yield "not_counted", f"Not counted to the end within the time of one search (`[query] time`): {_list(partial)}."
    unproven = [one["id"] for one in controls if any(not sample["proof"] for sample in one["samples"])]
    if unproven:
        yield (
            "not_sealed",
            f"Samples without a proof, because no signed head covered them yet: {_list(unproven)}. Make the report again.",
        )


def _gaps(gaps: dict[str, Any]) -> Iterator[Limit]:
    if gaps["unnumbered"]:
        names = [f"{one['source']} ({one['events']:,} events)" for one in gaps["unnumbered"]]
        yield (
            "no_sequence",
            f"These sources send events without sequence numbers, so that one which never came leaves no trace: {_list(names)}.",
        )
    missing = sum(one["records"] for one in gaps["gaps"] if one["reason"] in ("sequence", "udp_dropped"))
    if missing:
        yield "gaps", f"{missing:,} records are known to be missing; they are listed under gaps."
    waiting = sum(one["waiting"] for one in gaps["quarantine"])
    if waiting:
        yield "quarantine", f"{waiting:,} records are in quarantine and became no event; no control counts them."


def _delivery(deliveries: dict[str, Any]) -> Iterator[Limit]:
    if not deliveries["destinations"]:
        yield "no_destination", "There is no destination: no copy of the events is elsewhere, and no statement says so."
    elif not deliveries["statements"]:
        yield (
            "no_statement",
            "No delivery statement was issued in the period: what reached the destinations is not on record for it.",
        )
    pending = [
        f"{one['destination']} of {one['tenant']} ({one['pending']:,})" for one in deliveries["statements"] if one["pending"]
    ]
    if pending:
        yield "pending", f"Events were still pending at the last statement: {_list(pending)}."
    dead = sum(sum(one["dead_lettered"].values()) for one in deliveries["statements"])
    if dead:
        yield "dead_letters", f"{dead:,} events were dead-lettered: a destination does not have them."
    if deliveries["statements"]:
        yield (
            "acknowledged",
            "Delivered means acknowledged by the destination. What it holds today `tallystick reconcile` finds out.",
        )


def _retention(framework: Framework, retention: dict[str, Any]) -> Iterator[Limit]:
    if framework.keep_days:
        short = [
            f"{one['name']} ({period})"
            for one in retention["classes"]
            for period in (one["period"], *one["tenants"].values())
            if Duration(period).seconds < framework.keep_days * 86_400
        ]
        if short:
            yield (
                "kept_shorter",
                f"Kept for less than {framework.keep_days} days: {_list(short)}. {framework.name}: {framework.keep_why}.",
            )
    if retention["expired_events"]:
        yield (
            "expired",
            f"{retention['expired_events']:,} events expired in the period, with certificates; no control counts what is gone.",
        )
    if retention["brake"]:
        yield "brake", f"Expiry is stopped: {retention['brake']['reason']}."


def _practice(parts: dict[str, Any]) -> Iterator[Limit]:
    overdue = [one["schedule"] or one["query"] or "all events" for one in parts["reviews"]["due"] if one["is_overdue"]]
    if overdue:
        yield "review_overdue", f"Reviews that are overdue: {_list(overdue)}."
    if not any(one["signed_at"] for one in parts["reviews"]["reviews"]):
        yield "no_review", "No review was signed for this period."
    kinds = {one["type"] for one in parts["drills"]["entries"]}
    if "backup" not in kinds:
        yield "no_backup", "No backup is on record in the period."
    if not kinds & {"drill", "restore"}:
        yield "no_drill", "No drill and no restore is on record in the period: that data can be restored is not shown."
    if parts["access"]["keys"] is None:
        yield "no_keys", "The API keys are not listed: the key that made this report has no permission `keys`."
    if not parts["access"]["has_server_log"]:
        yield "no_server_log", "The server's own log is not part of it: the key that made this report is bound to tenants."


def _list(names: Sequence[str], shown: int = 12) -> str:
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more} more" if more > 0 else "")
