"""Who and what appears in the story of Northwind Robotics."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

OFFICE = "198.51.100.24"
INTRUDER = "203.0.113.77"
BROWSER = "Mozilla/5.0 (Macintosh; Intel Mac OS X 14_5) AppleWebKit/605.1.15 Version/17.5 Safari/605.1.15"
OTHER_BROWSER = "Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0"


@dataclass(frozen=True)
class Person:
    """An employee or a customer."""

    id: str
    name: str
    email: str
    role: str
    ip: str
    github: str = ""

    def actor(self) -> dict[str, Any]:
        return {"type": "user", "id": self.id, "name": self.name, "email": self.email, "roles": [self.role]}


PRIYA = Person("u_204", "Priya Natarajan", "priya.natarajan@northwind.example", "support", "192.0.2.41", "priya-n")
TOMAS = Person("u_101", "Tomas Lindqvist", "tomas.lindqvist@northwind.example", "engineer", OFFICE, "tlindqvist")
AOIFE = Person("u_102", "Aoife Brennan", "aoife.brennan@northwind.example", "security", OFFICE, "abrennan")
KENJI = Person("u_103", "Kenji Watanabe", "kenji.watanabe@northwind.example", "engineer", "192.0.2.90", "kwatanabe")
MARTA = Person("u_205", "Marta Oliveira", "marta.oliveira@northwind.example", "finance", OFFICE)
SAMIR = Person("u_206", "Samir Haddad", "samir.haddad@northwind.example", "support", "192.0.2.55", "samirh")
STAFF = (PRIYA, TOMAS, AOIFE, KENJI, MARTA, SAMIR)

ORTEGA = Person("c_881", "Julia Ortega", "j.ortega@globex.example", "admin", "198.51.100.140")
BLOM = Person("c_882", "Erik Blom", "e.blom@globex.example", "member", "198.51.100.141")
CUSTOMERS = (ORTEGA, BLOM)

DEPLOYER = {"type": "service", "id": "svc-deploy", "name": "deploy bot"}
REPORTER = {"type": "service", "id": "svc-reporting", "name": "reporting job"}


@dataclass(frozen=True)
class Told:
    """One record of the story: when, where it is sent, for which tenant, and what."""

    at: datetime
    source: str
    tenant: str
    record: dict[str, Any]


def stamp(at: datetime) -> str:
    """RFC 3339, UTC, microseconds."""
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def app_event(at: datetime, tenant: str, action: str, actor: dict[str, Any], **fields: Any) -> Told:
    """One of the product's own events, in Tallystick's form."""
    record = {"occurred_at": stamp(at), "action": action, "actor": actor, "outcome": "success", **fields}
    return Told(at, "events", tenant, record)


def okta_event(at: datetime, person: Person, action: str, ip: str, place: str, **fields: Any) -> Told:
    """A sign-on event as the identity provider's connector hands it over."""
    context = {"ip": ip, "user_agent": BROWSER if ip != INTRUDER else OTHER_BROWSER, "location": place}
    record = {
        "occurred_at": stamp(at),
        "action": action,
        "category": "authentication",
        "actor": {**person.actor(), "credential": "okta"},
        "targets": [{"type": "application", "id": "northwind-console", "name": "Northwind Console"}],
        "outcome": "success",
        "context": {**context, **fields.pop("context", {})},
        "metadata": {"product": "okta", **fields.pop("metadata", {})},
        **fields,
    }
    return Told(at, "events", "northwind", record)


def github_record(at: datetime, actor: str, action: str, ip: str, **fields: Any) -> Told:
    """A record of GitHub's audit log, in GitHub's form."""
    millis = int(at.timestamp() * 1000)
    record = {
        "@timestamp": millis,
        "_document_id": f"gh-{millis:x}-{action}",
        "action": action,
        "actor": actor,
        "actor_ip": ip,
        "created_at": millis,
        "org": "northwind",
        **fields,
    }
    return Told(at, "github", "northwind", record)


def cloudtrail_record(at: datetime, user: str, service: str, name: str, ip: str, number: int, **fields: Any) -> Told:
    """A record of AWS CloudTrail, in Amazon's form."""
    record = {
        "eventVersion": "1.09",
        "userIdentity": {
            "type": "IAMUser",
            "principalId": f"AIDA{user.upper():0<12.12}",
            "arn": f"arn:aws:iam::123456789012:user/{user}",
            "accountId": "123456789012",
            "accessKeyId": "AKIAIOSFODNN7EXAMPLE",
            "userName": user,
        },
        "eventTime": (at - timedelta(microseconds=at.microsecond)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "eventSource": f"{service}.amazonaws.com",
        "eventName": name,
        "awsRegion": "eu-west-1",
        "sourceIPAddress": ip,
        "userAgent": "aws-cli/2.17.9",
        "requestParameters": None,
        "responseElements": None,
        "requestID": f"req-{number:08d}",
        "eventID": f"7f3c0000-0000-4000-8000-{number:012d}",
        "readOnly": name.startswith(("Get", "List", "Describe")),
        "eventType": "AwsApiCall",
        "managementEvent": True,
        "recipientAccountId": "123456789012",
        **fields,
    }
    return Told(at, "cloudtrail", "northwind", record)
