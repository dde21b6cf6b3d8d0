"""Five working days at Northwind Robotics, so that the odd stands out."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import datetime, timedelta

from tallystick.demo.cast import (
    BLOM,
    BROWSER,
    CUSTOMERS,
    DEPLOYER,
    KENJI,
    OFFICE,
    ORTEGA,
    REPORTER,
    STAFF,
    TOMAS,
    Person,
    Told,
    app_event,
    cloudtrail_record,
    github_record,
    okta_event,
)

DAYS = 5


def ordinary_life(monday: datetime, chance: random.Random) -> Iterator[Told]:
    """Everything unremarkable, from Monday to Friday."""
    for day in range(DAYS):
        midnight = monday + timedelta(days=day)
        for person in STAFF:
            yield from _working_day(midnight, person, chance)
        yield from _customers(midnight, chance)
        yield from _deployments(midnight, chance, day)
        yield from _cloud(midnight, chance, day)


def _at(midnight: datetime, hour: float, chance: random.Random, spread_min: int = 25) -> datetime:
    offset = timedelta(hours=hour, minutes=chance.uniform(-spread_min, spread_min), microseconds=chance.randrange(1_000_000))
    return midnight + offset


def _working_day(midnight: datetime, person: Person, chance: random.Random) -> Iterator[Told]:
    place = "Dublin, IE" if person.ip != OFFICE else "Dublin office, IE"
    session = {"session_id": f"s_{person.id}_{midnight:%m%d}"}
    if chance.random() < 0.2:
        yield okta_event(
            _at(midnight, 8.7, chance), person, "user.login", person.ip, place, outcome="failure", reason="wrong password"
        )
    yield okta_event(_at(midnight, 9, chance), person, "user.login", person.ip, place, context=session)
    for _ in range(chance.randrange(7, 11)):
        number = chance.randrange(100, 999)
        action, kind, prefix = chance.choice(
            (("invoice.view", "invoice", "i_"), ("customer.view", "customer", "k_"), ("ticket.update", "ticket", "T-"))
        )
        yield app_event(
            _at(midnight, chance.uniform(9.5, 16.2), chance),
            "northwind",
            action,
            person.actor(),
            category="data",
            targets=[{"type": kind, "id": f"{prefix}{number}"}],
            context={"ip": person.ip, "user_agent": BROWSER, **session},
        )
    if chance.random() < 0.15:
        yield app_event(
            _at(midnight, 14, chance, 90),
            "northwind",
            "role.grant",
            person.actor(),
            category="authorization",
            targets=[{"type": "user", "id": "u_310", "name": "new starter"}, {"type": "role", "id": "admin"}],
            outcome="denied",
            reason="needs a second approver",
            context={"ip": person.ip, **session},
        )
    yield okta_event(_at(midnight, 16.4, chance, 12), person, "user.logout", person.ip, place, context=session)


def _customers(midnight: datetime, chance: random.Random) -> Iterator[Told]:
    for person in CUSTOMERS:
        context = {"ip": person.ip, "user_agent": BROWSER, "session_id": f"s_{person.id}_{midnight:%m%d}"}
        yield app_event(
            _at(midnight, 8, chance), "globex", "user.login", person.actor(), category="authentication", context=context
        )
        for _ in range(chance.randrange(7, 11)):
            yield app_event(
                _at(midnight, chance.uniform(8.5, 15.5), chance),
                "globex",
                chance.choice(("report.view", "robot.start", "robot.stop", "schedule.update")),
                person.actor(),
                category="data",
                targets=[{"type": "robot", "id": f"rb_{chance.randrange(1, 40)}", "name": f"Arm {chance.randrange(1, 40)}"}],
                context=context,
            )
    yield app_event(
        _at(midnight, 11, chance),
        "globex",
        "member.invite",
        ORTEGA.actor(),
        category="account",
        targets=[{"type": "user", "id": BLOM.id, "name": BLOM.name}],
        changes=[{"path": "/members/2/role", "op": "replace", "before": "guest", "after": "member"}],
        context={"ip": ORTEGA.ip},
    )


def _deployments(midnight: datetime, chance: random.Random, day: int) -> Iterator[Told]:
    for number in range(chance.randrange(3, 6)):
        person = chance.choice((TOMAS, KENJI))
        at = _at(midnight, chance.uniform(10, 15.5), chance)
        yield github_record(
            at, person.github, "pull_request.merge", person.ip, repo="northwind/console", pull_request_id=4000 + day * 9 + number
        )
        yield github_record(
            at + timedelta(seconds=40), person.github, "workflows.completed_workflow_run", person.ip, repo="northwind/console"
        )
        version = f"2026.{day + 1}.{number}"
        yield app_event(
            at + timedelta(minutes=6),
            "northwind",
            "deployment.finish",
            DEPLOYER,
            category="configuration",
            targets=[{"type": "service", "id": "console", "name": "console"}],
            changes=[{"path": "/version", "op": "replace", "before": f"2026.{day + 1}.{number - 1}", "after": version}],
        )


def _cloud(midnight: datetime, chance: random.Random, day: int) -> Iterator[Told]:
    for number in range(10):
        name, service = chance.choice(
            (
                ("DescribeInstances", "ec2"),
                ("GetObject", "s3"),
                ("ListBuckets", "s3"),
                ("GetParameter", "ssm"),
                ("AssumeRole", "sts"),
            )
        )
        yield cloudtrail_record(
            _at(midnight, chance.uniform(7, 18), chance), "deploy", service, name, OFFICE, 1000 + day * 100 + number
        )
    yield app_event(
        _at(midnight, 6, chance, 2),
        "northwind",
        "report.create",
        REPORTER,
        category="data",
        targets=[{"type": "report", "id": f"daily-{midnight:%Y-%m-%d}"}],
        metadata={"rows": chance.randrange(900, 1100)},
    )
