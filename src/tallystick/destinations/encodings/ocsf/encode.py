"""The whole event.

Every member of the canonical line has a place: an attribute of the class, or ``unmapped`` under its own name. ``metadata.uid`` and
``metadata.tenant_uid`` name the event, ``time_dt`` has its time to the microsecond (profile `datetime`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import msgspec

from tallystick.destinations.encodings.facts import Facts, facts_of
from tallystick.destinations.encodings.kinds import first_of, kind_of
from tallystick.destinations.encodings.ocsf.classify import choose_class
from tallystick.destinations.encodings.ocsf.objects import (
    endpoint,
    named,
    privileges_of,
    user_of,
    user_target,
)
from tallystick.destinations.encodings.ocsf.schema import (
    ACCOUNT,
    API,
    AUTHENTICATION,
    AUTHORIZE_SESSION,
    DATASTORE,
    ENTITY,
    EVENT_LOG,
    FILE_HOSTING,
    GROUP,
    HTTP,
    OTHER,
    USER_ACCESS,
    VERSIONS,
    WEB_RESOURCES,
    OcsfClass,
    Schema,
    Version,
    find_activity,
)
from tallystick.destinations.encodings.registry import Options
from tallystick.destinations.encodings.rest import rest_of
from tallystick.destinations.encodings.times import millis_of
from tallystick.destinations.encodings.values import is_address, is_country, is_email
from tallystick.event import Event, Target
from tallystick.event.codec import decode_line

_SEVERITIES = ("Unknown", "Informational", "Low", "Medium", "High", "Critical", "Fatal")
_STATUS = {"success": (1, "Success"), "failure": (2, "Failure"), "denied": (2, "Failure")}
_NEEDS_SOURCE = (API, DATASTORE, FILE_HOSTING)
_encode = msgspec.json.Encoder().encode


class OcsfEvents:
    """Events of one version of the schema. ``version`` is that of the encoding and that of the schema."""

    name = "ocsf"
    content_type = "application/x-ndjson"
    record_type = "application/json"
    suffix = ".jsonl"

    def __init__(self, ocsf: Version) -> None:
        self.version = f"1+ocsf-{VERSIONS[ocsf]}"
        self._schema = Schema(ocsf)

    def encode_events(self, lines: Sequence[bytes]) -> Sequence[bytes]:
        return [_encode(self.build(decode_line(line))) for line in lines]

    def build(self, event: Event) -> dict[str, Any]:
        """The event as OCSF has it."""
        facts = facts_of(event)
        chosen = choose_class(facts, self._schema)
        one = self._schema.classes[chosen.uid]
        activity = find_activity(one, chosen.operation)
        number, caption = activity or (OTHER, event.action)
        return _Draft(self._schema, facts, one).finish(number, caption)


class _Draft:
    """One event on its way: what is placed so far, and what is not."""

    def __init__(self, schema: Schema, facts: Facts, one: OcsfClass) -> None:
        self._event = facts.event
        self._facts = facts
        self._class = one
        self._schema = schema
        self._attributes: dict[str, Any] = {}
        self._unplaced = list(facts.targets)
        self._unmapped: dict[str, Any] = {}
        self._observables: list[dict[str, Any]] = []
        self._metadata: dict[str, Any] = {
            "uid": self._event.id or "",
            "tenant_uid": self._event.tenant or "",
            "version": schema.full_version,
            "profiles": ["datetime"],
            "product": {"name": facts.product.name, "vendor_name": facts.product.vendor},
            "event_code": self._event.action,
            "log_provider": "tallystick",
        }

    def finish(self, activity_id: int, activity_name: str) -> dict[str, Any]:
        """Place everything, then put it together."""
        event, one = self._event, self._class
        severity = event.severity or 0
        self._place_actor()
        self._place_context()
        self._place_targets()
        self._place_origin()
        self._leave_rest()
        found: dict[str, Any] = {
            "activity_id": activity_id,
            "activity_name": activity_name,
            "category_uid": one.category_uid,
            "category_name": one.category_name,
            "class_uid": one.uid,
            "class_name": one.name,
            "type_uid": one.uid * 100 + activity_id,
            "type_name": f"{one.name}: {activity_name if activity_id != OTHER else 'Other'}",
            "severity_id": severity,
            "severity": _SEVERITIES[severity],
            "time": millis_of(event.occurred_at or ""),
            "time_dt": event.occurred_at or "",
            **self._status(),
            "metadata": self._metadata,
            **self._attributes,
        }
        if self._observables:
            found["observables"] = self._observables
        if event.raw:
            found["raw_data"] = event.raw
            if "raw_data_size" in one.attributes:
                found["raw_data_size"] = len(event.raw.encode())
        found["unmapped"] = self._unmapped
        return found

    def _status(self) -> dict[str, Any]:
        outcome = self._event.outcome or "unknown"
        number, caption = _STATUS.get(outcome, (0, "Unknown"))
        found: dict[str, Any] = {"status_id": number, "status": caption}
        if outcome == "denied":
            found["status_code"] = "denied"
        if self._event.reason:
            found["status_detail"] = self._event.reason
        return found

    def _place_actor(self) -> None:
        actor = self._event.actor
        if "actor" not in self._class.attributes:
            self._unmapped["actor"] = actor
            return
        if self._class.host_actor:
            self._metadata["profiles"].append("host")
        user = user_of(actor, has_service_type=self._schema.version == "1.8")
        self._attributes["actor"] = {"user": user}
        self._observe("actor.user.name", 4, user["name"])
        rest: dict[str, Any] = {"roles": actor.roles} if actor.roles else {}
        if actor.email:
            if is_email(actor.email):
                self._observe("actor.user.email_addr", 5, actor.email)
            else:
                rest["email"] = actor.email
        if rest:
            self._unmapped["actor"] = rest

    def _place_context(self) -> None:
        context, has = self._event.context, self._class.attributes
        left: dict[str, str] = {}
        if context:
            left = {name: value for name in context.__struct_fields__ if (value := getattr(context, name))}
        if "src_endpoint" in has:
            self._place_source(left)
        if "http_request" in has and (agent := left.pop("user_agent", "")):
            self._attributes["http_request"] = {"user_agent": agent}
            if not self._schema.is_first:
                self._observe("http_request.user_agent", 16, agent)
        if "actor" in has and (session := left.pop("session_id", "")):
            self._attributes["actor"]["session"] = {"uid": session}
            if "session" in has:
                self._attributes["session"] = {"uid": session}
        self._place_request(left.pop("request_id", ""))
        if left:
            self._unmapped["context"] = left

    def _place_source(self, left: dict[str, str]) -> None:
        """Where the event came from. A class that requires it gets the name `unknown` when nothing is said."""
        if address := left.pop("ip", ""):
            self._attributes["src_endpoint"] = source = endpoint(address)
            if "ip" in source:
                self._observe("src_endpoint.ip", 2, address)
            if is_country(left.get("location", "")):
                source["location"] = {"country": left.pop("location")}
        elif self._class.uid in _NEEDS_SOURCE:
            self._attributes["src_endpoint"] = {"name": "unknown"}

    def _place_request(self, request: str) -> None:
        if self._class.uid == API:
            self._attributes["api"] = api = {"operation": self._event.action, "service": {"name": self._facts.product.name}}
            if request:
                api["request"] = {"uid": request}
        elif request:
            self._metadata["correlation_uid"] = request

    def _place_targets(self) -> None:
        place = {
            ACCOUNT: self._place_user,
            AUTHENTICATION: self._place_login,
            AUTHORIZE_SESSION: self._place_session,
            ENTITY: self._place_entity,
            USER_ACCESS: self._place_access,
            GROUP: self._place_group,
            WEB_RESOURCES: self._place_web_resources,
            API: self._place_resources,
            DATASTORE: self._place_store,
            FILE_HOSTING: self._place_file,
            HTTP: self._place_url,
            EVENT_LOG: self._place_log,
        }.get(self._class.uid)
        if "dst_endpoint" in self._class.attributes and (host := self._take("host")):
            self._attributes["dst_endpoint"] = endpoint(host.id) if is_address(host.id) else {"name": host.name or host.id}
        if place is not None:
            place()
        if self._unplaced:
            self._unmapped["targets"] = self._unplaced

    def _place_user(self) -> None:
        target = self._take("user")
        self._attributes["user"] = user_target(target) if target else self._attributes["actor"]["user"]

    def _place_login(self) -> None:
        self._place_user()
        service = self._take("service")
        if service:
            self._attributes["service"] = named(service)
        elif "dst_endpoint" not in self._attributes:
            self._attributes["service"] = {"name": self._facts.product.name}

    def _place_session(self) -> None:
        self._place_user()
        self._attributes["privileges"] = privileges_of(self._event)

    def _place_entity(self) -> None:
        self._attributes["entity"] = named(self._unplaced.pop(0), "type")

    def _place_access(self) -> None:
        self._place_user()
        privileges = [target for target in self._unplaced if kind_of(target.type) == "privilege"]
        self._unplaced = [target for target in self._unplaced if kind_of(target.type) != "privilege"]
        self._attributes["privileges"] = [target.name or target.id for target in privileges]
        if "resources" in self._class.attributes and self._unplaced:
            self._place_resources()

    def _place_group(self) -> None:
        group, user = self._take("group"), self._take("user")
        if group:
            self._attributes["group"] = named(group, "type")
        if user:
            self._attributes["user"] = user_target(user)

    def _place_web_resources(self) -> None:
        self._attributes["web_resources"] = [named(target, "type") for target in self._unplaced]
        self._unplaced = []

    def _place_resources(self) -> None:
        if self._unplaced:
            self._attributes["resources"] = [named(target, "type", "owner") for target in self._unplaced]
            self._unplaced = []

    def _place_log(self) -> None:
        """Only Windows' security log says that it was cleared."""
        self._attributes["log_name"] = "Security"

    def _place_store(self) -> None:
        if table := self._take("table"):
            self._attributes["table"] = named(table)
        for kind, attribute in (("database", "database"), ("bucket", "databucket")):
            if store := self._take(kind):
                self._attributes[attribute] = {**named(store, "type"), "type_id": 0}

    def _place_file(self) -> None:
        file = self._take("file")
        if file:
            name = file.name or file.id.rpartition("/")[2] or file.id
            self._attributes["file"] = {"uid": file.id, "name": name, "type": file.type, "type_id": 0}

    def _place_url(self) -> None:
        request = self._attributes.setdefault("http_request", {})
        method = self._event.action.rpartition(".")[2]
        if method.lower() in self._class.activities:  # this version's methods; any other stays in the action alone
            request["http_method"] = method.upper()
        if url := self._take("url"):
            request["url"] = {"url_string": url.id}

    def _place_origin(self) -> None:
        if self._event.source:
            self._metadata["log_name"] = self._event.source.name
        self._metadata["logged_time"] = millis_of(self._event.received_at or "")
        self._metadata["logged_time_dt"] = self._event.received_at or ""

    def _leave_rest(self) -> None:
        """Members of the canonical line that OCSF has no attribute for."""
        names = ("category", "on_behalf_of", "changes", "metadata", "enrichment", "producer", "source", "ingest", "sealed")
        self._unmapped |= rest_of(self._event, names)

    def _take(self, kind: str) -> Target | None:
        found = first_of(self._unplaced, kind)
        if found is not None:
            self._unplaced.remove(found)
        return found

    def _observe(self, name: str, type_id: int, value: str) -> None:
        self._observables.append({"name": name, "type_id": type_id, "value": value})


def make(options: Options) -> OcsfEvents:
    """In the version that the settings name."""
    return OcsfEvents(cast("Version", options.get("ocsf_version", "1.8")))
