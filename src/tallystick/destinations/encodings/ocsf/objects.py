"""Actors, endpoints and targets as OCSF's objects. What a value's type there does not allow is left to ``unmapped``."""

from __future__ import annotations

from typing import Any

import msgspec

from tallystick.destinations.encodings.values import is_address, is_email
from tallystick.event import Actor, Event, Target

_USER_TYPES = {"user": (1, "User"), "system": (3, "System"), "service": (4, "Service")}


def user_of(actor: Actor, *, has_service_type: bool) -> dict[str, Any]:
    """An actor; the name of one that has none is its id."""
    number, caption = _USER_TYPES.get(actor.type, (99, actor.type))
    if number == 4 and not has_service_type:
        number = 99
    user = {"uid": actor.id, "name": actor.name or actor.id, "type_id": number, "type": caption}
    if actor.email and is_email(actor.email):
        user["email_addr"] = actor.email
    if actor.credential:
        user["credential_uid"] = actor.credential
    return user


def user_target(target: Target) -> dict[str, Any]:
    """A target that is a user."""
    user = {"uid": target.id, "name": target.name or target.id, "type_id": 99, "type": target.type}
    if is_email(target.id):
        user["email_addr"] = target.id
    return user


def named(target: Target, *extra: str) -> dict[str, Any]:
    """``uid``, ``name`` and what else of `type` and `owner` the object has."""
    found: dict[str, Any] = {"uid": target.id}
    if target.name:
        found["name"] = target.name
    if "type" in extra:
        found["type"] = target.type
    if "owner" in extra and target.owner:
        found["owner"] = {"name": target.owner}
    return found


def endpoint(text: str) -> dict[str, Any]:
    """An endpoint out of what a record gave as its address: an address, or a name such as `ec2.amazonaws.com`."""
    return {"ip": text} if is_address(text) else {"name": text}


def privileges_of(event: Event) -> list[str]:
    """The privileges that Windows says a new session got."""
    if event.metadata is msgspec.UNSET:
        return []
    said = msgspec.json.decode(event.metadata)
    data = said.get("EventData", said)
    listed = data.get("PrivilegeList") if isinstance(data, dict) else None
    return listed.split() if isinstance(listed, str) else []
