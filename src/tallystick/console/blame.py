"""Who set this value: the last change of each path of a target, and those before it, from the `changes` of its events. Pure.

Only events that succeeded change anything. A path that was removed keeps its line, with the removal. Values are shown as the event has them,
masked ones as masked: the log cannot say more than it was told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tallystick.console.event_view import ChangeView, view_changes
from tallystick.console.text import shorten

_NAME_MAX = 80


@dataclass(frozen=True, slots=True)
class Setting:
    """One path as it stands. ``event``, ``by`` and ``at`` are of its last change; ``earlier`` counts those before it."""

    path: str
    change: ChangeView
    event: str
    by: str
    actor: str
    at: str
    earlier: int


def find_blame(events: Sequence[Mapping[str, Any]], kind: str, id_: str) -> list[Setting]:
    """By path. ``events`` come newest first; those that changed something else than this target (their first) are passed over."""
    found: dict[str, Setting] = {}
    seen: dict[str, int] = {}
    for event in events:
        if not _is_of(event, kind, id_) or event.get("outcome") not in ("success", None):
            continue
        for change in reversed(view_changes(dict(event))):  # the last change of a path within an event is the one that stands
            seen[change.path] = seen.get(change.path, 0) + 1
            if change.path not in found:
                found[change.path] = _setting(event, change)
    return [_with_earlier(setting, seen[path] - 1) for path, setting in sorted(found.items())]


def _is_of(event: Mapping[str, Any], kind: str, id_: str) -> bool:
    targets = event.get("targets") or [{}]
    return targets[0].get("id") == id_ and (not kind or targets[0].get("type") == kind)


def _setting(event: Mapping[str, Any], change: ChangeView) -> Setting:
    actor = event.get("actor") or {}
    name = str(actor.get("name") or actor.get("id") or "")
    at = str(event.get("occurred_at") or "")
    return Setting(change.path, change, str(event.get("id", "")), shorten(name, _NAME_MAX), str(actor.get("id") or ""), at, 0)


def _with_earlier(setting: Setting, earlier: int) -> Setting:
    return Setting(setting.path, setting.change, setting.event, setting.by, setting.actor, setting.at, earlier)
