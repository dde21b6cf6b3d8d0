"""The take-over: Tuesday 16:40 to Wednesday noon. Each step can be found by one query, and they join by actor and address."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta

from tallystick.demo.cast import (
    AOIFE,
    INTRUDER,
    ORTEGA,
    OTHER_BROWSER,
    PRIYA,
    Told,
    app_event,
    cloudtrail_record,
    github_record,
    okta_event,
)
from tallystick.demo.ordinary import DAYS, ordinary_life

SEED = 20_260_316
_SESSION = "s_u_204_evening"
_CONTEXT = {"ip": INTRUDER, "user_agent": OTHER_BROWSER, "session_id": _SESSION}
_KEY = {"type": "api_key", "id": "svc-reporting-2", "name": "svc-reporting-2", "owner": PRIYA.id}


def tell(now: datetime) -> list[Told]:
    """The whole story, in order of time, ending a little before ``now`` (aware, UTC)."""
    monday = datetime.combine((now - timedelta(days=DAYS)).date(), time(), UTC)
    told = [
        *ordinary_life(monday, random.Random(SEED)),
        *_take_over(monday + timedelta(days=1)),
        *_discovery(monday + timedelta(days=2)),
    ]
    return sorted((record for record in told if record.at < now), key=lambda record: record.at)


def _take_over(tuesday: datetime) -> Iterator[Told]:
    def at(hour: int, minute: int, second: int = 0) -> datetime:
        return tuesday + timedelta(hours=hour, minutes=minute, seconds=second, microseconds=418_000)

    yield okta_event(at(16, 40), PRIYA, "user.logout", PRIYA.ip, "Dublin, IE")
    yield okta_event(
        at(16, 52), PRIYA, "user.login", INTRUDER, "Bucharest, RO", context={"session_id": _SESSION}, metadata={"new_country": True}
    )
    yield app_event(
        at(16, 58),
        "globex",
        "impersonation.start",
        PRIYA.actor(),
        category="authorization",
        on_behalf_of=[{"type": "user", "id": ORTEGA.id, "name": ORTEGA.name, "email": ORTEGA.email, "mode": "impersonation"}],
        targets=[{"type": "user", "id": ORTEGA.id, "name": ORTEGA.name}],
        context=_CONTEXT,
        metadata={"ticket": ""},
    )
    yield app_event(
        at(17, 3),
        "northwind",
        "api_key.create",
        PRIYA.actor(),
        category="account",
        targets=[_KEY],
        changes=[
            {"path": "/scopes", "op": "add", "after": ["export:*"]},
            {"path": "/expires_at", "op": "add", "after": None},
        ],
        context=_CONTEXT,
    )
    for minute, rows, outcome in ((4, 4210, "success"), (6, 4210, "success"), (9, 0, "denied")):
        yield app_event(
            at(17, minute),
            "northwind",
            "customer.export",
            {"type": "service", "id": "svc-reporting-2", "name": "svc-reporting-2"},
            category="data",
            targets=[{"type": "customer_list", "id": "all", "name": "all customers"}],
            outcome=outcome,
            reason="daily export limit reached" if outcome == "denied" else "requested over the API",
            context=_CONTEXT,
            metadata={"rows": rows, "format": "csv"},
        )
    yield github_record(
        at(17, 11), PRIYA.github, "public_key.create", INTRUDER, repo="northwind/infra", title="ci-mirror", read_only=False
    )
    yield cloudtrail_record(
        at(17, 12),
        "priya",
        "secretsmanager",
        "GetSecretValue",
        INTRUDER,
        9001,
        requestParameters={"secretId": "prod/northwind/billing-db"},
    )
    yield app_event(
        at(17, 15),
        "northwind",
        "audit.settings.update",
        PRIYA.actor(),
        category="configuration",
        targets=[{"type": "audit_filter", "id": "noise", "name": "noise filter"}],
        outcome="denied",
        reason="policy: exports may not be filtered from the audit log",
        changes=[{"path": "/filters/noise/drop", "op": "replace", "before": "action:health.check", "after": "action:*.export"}],
        context=_CONTEXT,
    )
    yield app_event(at(17, 20), "northwind", "api_key.delete", PRIYA.actor(), category="account", targets=[_KEY], context=_CONTEXT)
    yield app_event(
        at(17, 20, 30),
        "globex",
        "impersonation.end",
        PRIYA.actor(),
        category="authorization",
        targets=[{"type": "user", "id": ORTEGA.id, "name": ORTEGA.name}],
        context=_CONTEXT,
    )
    yield okta_event(at(17, 21), PRIYA, "user.logout", INTRUDER, "Bucharest, RO", context={"session_id": _SESSION})


def _discovery(wednesday: datetime) -> Iterator[Told]:
    def at(hour: int, minute: int) -> datetime:
        return wednesday + timedelta(hours=hour, minutes=minute, microseconds=77_000)

    yield app_event(
        at(9, 31),
        "northwind",
        "incident.report",
        PRIYA.actor(),
        category="other",
        targets=[{"type": "incident", "id": "INC-77", "name": "phishing mail"}],
        reason="clicked a link in a mail that looked like the sign-on page",
        context={"ip": PRIYA.ip},
    )
    yield app_event(
        at(9, 44),
        "northwind",
        "session.revoke",
        AOIFE.actor(),
        category="authentication",
        targets=[{"type": "user", "id": PRIYA.id, "name": PRIYA.name}],
        context={"ip": AOIFE.ip},
    )
    yield okta_event(
        at(9, 46),
        AOIFE,
        "user.password.reset",
        AOIFE.ip,
        "Dublin office, IE",
        targets=[{"type": "user", "id": PRIYA.id, "name": PRIYA.name}],
    )
    yield github_record(at(10, 2), AOIFE.github, "public_key.delete", AOIFE.ip, repo="northwind/infra", title="ci-mirror")
    yield app_event(
        at(10, 20),
        "northwind",
        "incident.update",
        AOIFE.actor(),
        category="other",
        targets=[{"type": "incident", "id": "INC-77"}, _KEY],
        reason="the key svc-reporting-2 was found by its deletion event; hold requested for both tenants",
        changes=[{"path": "/severity", "op": "replace", "before": "low", "after": "critical"}],
        context={"ip": AOIFE.ip},
    )
