"""Which class an event is of, and which activity.

The category that a mapping gave (or the sender said) decides first, then what the event is about. A class is chosen only when the event
has what the class requires; else a wider one is, down to Base Event, which takes everything. Nothing that is required is made up.
"""

from __future__ import annotations

from typing import NamedTuple

from tallystick.destinations.encodings.facts import Facts
from tallystick.destinations.encodings.kinds import first_of
from tallystick.destinations.encodings.ocsf.objects import privileges_of
from tallystick.destinations.encodings.ocsf.schema import (
    ACCOUNT,
    API,
    AUTHENTICATION,
    AUTHORIZE_SESSION,
    BASE,
    DATASTORE,
    ENTITY,
    EVENT_LOG,
    FILE_HOSTING,
    GROUP,
    HTTP,
    NETWORK,
    USER_ACCESS,
    WEB_RESOURCES,
    Schema,
    find_activity,
)

_PASSWORD = frozenset({"password", "passwd", "passphrase", "chauthtok"})
_FACTOR = frozenset({"mfa", "factor", "2sv", "2fa", "otp", "totp", "webauthn"})
_PERSON = frozenset(
    {
        "user",
        "users",
        "account",
        "accounts",
        "admin",
        "guest",
        "serviceaccount",
        "serviceaccounts",
        "principal",
        "register",
        "signup",
    }
)
_BELONGING = frozenset(
    {"key", "keys", "token", "tokens", "credential", "credentials", "profile", "device", "certificate", "membership"}
)
_GROUP = frozenset({"group", "groups", "team", "teams", "member", "members", "membership"})
_OFF = {
    "disable": "mfa_disable",
    "delete": "mfa_disable",
    "remove": "mfa_disable",
    "unenroll": "mfa_disable",
    "reset": "mfa_disable",
}
_ON = {"enable": "mfa_enable", "add": "mfa_enable", "enroll": "mfa_enable"}


class Chosen(NamedTuple):
    """A class and the operation in it."""

    uid: int
    operation: str


def choose_class(facts: Facts, schema: Schema) -> Chosen:
    """The class of an event among those that a version has."""
    for chosen in _candidates(facts):
        if chosen.uid in schema.classes and _is_possible(chosen, facts, schema):
            return chosen
    return Chosen(BASE, "")


def _candidates(facts: Facts) -> list[Chosen]:
    """From the closest class to the widest."""
    operation, nature = facts.words.operation, facts.product.nature
    if operation == "clear" and nature == "host":
        return [Chosen(EVENT_LOG, operation)]
    if operation == "grant" and "session" in facts.words.all and nature == "host":
        return [Chosen(AUTHORIZE_SESSION, operation)]
    found: list[Chosen] = []
    category = facts.event.category or _guess(facts)
    if category == "authentication":
        found += _account_first(facts, [Chosen(AUTHENTICATION, _login_operation(facts))])
    elif category == "account":
        found += _account_first(facts, _accounts(facts))
    elif category == "authorization":
        found += [Chosen(USER_ACCESS, operation if operation in ("grant", "revoke") else _granting(operation)), *_managed(facts)]
    elif category == "network":
        found += [Chosen(HTTP, next(iter(_method(facts)), "")), Chosen(NETWORK, operation)]
    elif category == "data":
        found += [Chosen(DATASTORE, operation)] if nature == "database" else []
        found += [
            Chosen(FILE_HOSTING, operation),
            *([Chosen(API, operation)] if nature == "api" else [Chosen(WEB_RESOURCES, operation)]),
        ]
    elif category == "configuration":
        found += _managed(facts)
    return [*found, Chosen(API, operation)] if nature == "api" else found


def _managed(facts: Facts) -> list[Chosen]:
    """A call of an API is API Activity whatever it manages."""
    return [] if facts.product.nature == "api" else [Chosen(ENTITY, facts.words.operation)]


def _accounts(facts: Facts) -> list[Chosen]:
    operation, said = facts.words.operation, facts.words.all
    closest = [Chosen(GROUP, operation)] if said & _GROUP and first_of(facts.targets, "group") else []
    if said & _PERSON and not said & _BELONGING:  # a key of an account that is created is no account that is created
        closest.append(Chosen(ACCOUNT, operation))
    return [*closest, *_managed(facts)]


def _account_first(facts: Facts, others: list[Chosen]) -> list[Chosen]:
    """Changes of a password or of a factor are changes of an account, in whatever category a product has them."""
    operation, said = facts.words.operation, facts.words.all
    if said & _PASSWORD and operation in ("update", "reset", ""):
        return [Chosen(ACCOUNT, "password_reset" if operation == "reset" else "password_change"), *others]
    if said & _FACTOR and (changed := _ON.get(operation) or _OFF.get(operation)):
        return [Chosen(ACCOUNT, changed), *others]
    return others


def _login_operation(facts: Facts) -> str:
    if facts.words.operation in ("login", "logout", "ticket", "service_ticket", "ticket_renew"):
        return facts.words.operation
    if "session" not in facts.words.all:
        return ""
    if facts.words.operation in ("delete", "remove", "revoke", "reset", "stop") or "end" in facts.words.all:
        return "logout"
    return "login" if facts.words.operation == "start" else ""


def _granting(operation: str) -> str:
    return {"add": "grant", "create": "grant", "remove": "revoke", "delete": "revoke"}.get(operation, operation)


def _method(facts: Facts) -> list[str]:
    return [facts.event.action[5:].lower()] if facts.event.action.lower().startswith("http.") else []


def _guess(facts: Facts) -> str:
    """The category of an event whose sender named none."""
    operation, said = facts.words.operation, facts.words.all
    if facts.product.nature == "api":
        return ""
    if operation in ("login", "logout") or said & (_PASSWORD | _FACTOR):
        return "authentication"
    if said & (_PERSON | _GROUP) and operation in (
        "create",
        "delete",
        "update",
        "add",
        "remove",
        "enable",
        "disable",
        "lock",
        "unlock",
    ):
        return "account"
    if operation in ("grant", "revoke"):
        return "authorization"
    return "data" if operation in ("read", "list", "search", "export", "download", "upload", "share", "copy") else "configuration"


def _is_possible(chosen: Chosen, facts: Facts, schema: Schema) -> bool:
    """Whether the event has what the class requires."""
    targets, one = facts.targets, schema.classes[chosen.uid]
    activity = find_activity(one, chosen.operation)
    if chosen.uid == USER_ACCESS:
        has_user = first_of(targets, "user") is not None
        return has_user and first_of(targets, "privilege") is not None and activity is not None
    if chosen.uid == AUTHORIZE_SESSION:
        return bool(privileges_of(facts.event))
    if chosen.uid == GROUP:
        has_second = not schema.is_first or first_of(targets, "user") is not None  # 1.1 wants somebody beside the group
        return activity is not None and has_second
    if chosen.uid == ACCOUNT:
        return activity is not None and (first_of(targets, "user") is not None or facts.event.actor.type == "user")
    if chosen.uid in (ENTITY, WEB_RESOURCES):
        return bool(targets) and (chosen.uid == ENTITY or activity is not None)
    if chosen.uid == DATASTORE:
        return any(first_of(targets, kind) for kind in ("database", "table", "bucket"))
    if chosen.uid == FILE_HOSTING:
        return first_of(targets, "file") is not None
    if chosen.uid in (HTTP, NETWORK):
        return _has_ends(chosen, facts, schema)
    return True


def _has_ends(chosen: Chosen, facts: Facts, schema: Schema) -> bool:
    source = bool(facts.event.context and facts.event.context.ip)
    target = first_of(facts.targets, "host") is not None
    if chosen.uid == HTTP and (schema.is_first or first_of(facts.targets, "url") is None):
        return False  # 1.1 wants the response too, which no event states
    if schema.is_first:  # 1.1 wants both ends
        return source and target
    return source or target if chosen.uid == NETWORK else True
