"""The door of signed hooks, and the settings of its source."""

from __future__ import annotations

import dataclasses
import gzip
import hmac
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tallystick.config import load_config
from tallystick.errors import ConfigError
from tallystick.journal.frame import FrameType
from tallystick.query.evaluate import compile_query
from tallystick.sources.hooks import HookDoor
from tallystick.sources.plan import build_plans
from tallystick.sources.routes import Route, Routes, build_routes
from tallystick.sources.tally import SourceTallies

from .conftest import Answer, Rig

JSON = "application/json"
SECRET = "a-secret-of-at-least-16-bytes"
NOW = 1772618400
CONFIGURATION = f"""
[sources.gh]
type = "http"
verify = "github"
secret = "{SECRET}"
previous_secret = "the-one-before-it-and-longer"
tenant = "acme"
[sources.chat]
type = "http"
verify = "slack"
secret = "{SECRET}"
tenant = "acme"
[sources.okta]
type = "http"
verify = "okta"
secret = "{SECRET}"
tenant = "acme"
[sources.stamped]
type = "http"
verify = "hmac"
secret = "{SECRET}"
tenant = "acme"
header = "X-Sig"
prefix = "v="
signed = "{{id}}.{{timestamp}}.{{body}}"
timestamp_header = "X-Time"
id_header = "X-Id"
"""


@pytest.fixture
def hooks(rig: Rig, tmp_path: Path) -> Rig:
    """The rig with these sources, at a fixed time."""
    path = tmp_path / "hooks.toml"
    path.write_text(CONFIGURATION)
    plans = build_plans(load_config(path), compile_query)
    rig.service.plans = plans
    rig.service.tallies = SourceTallies((plan.name, plan.type) for plan in plans.values())
    routes = list(build_routes(rig.parts, plans).exact.values())
    fixed = [dataclasses.replace(route, door=at_fixed_time(route)) for route in routes]
    rig.front = dataclasses.replace(rig.front, routes=Routes.of(fixed))
    return rig


def at_fixed_time(route: Route) -> Any:
    return dataclasses.replace(route.door, clock=lambda: NOW) if isinstance(route.door, HookDoor) else route.door


def sign(text: bytes, secret: str = SECRET) -> str:
    return hmac.new(secret.encode(), text, "sha256").hexdigest()


async def send(
    rig: Rig, source: str, body: bytes, headers: Iterable[tuple[str, str]], *, media: str | None = JSON, **options: Any
) -> Answer:
    return await rig.call(f"/v1/in/{source}", body, media=media, headers=headers, authorization=False, **options)


def github(body: bytes, secret: str = SECRET, delivery: str = "d-1") -> list[tuple[str, str]]:
    return [("x-hub-signature-256", "sha256=" + sign(body, secret)), ("x-github-delivery", delivery), ("x-github-event", "push")]


async def test_a_signed_delivery_needs_no_key(hooks: Rig) -> None:
    """Its events are the tenant's of the source, and say what the headers said; either secret will do."""
    body = b'{"user":"cat","n":1}'
    answer = await send(hooks, "gh", body, github(body))
    assert (answer.status, answer.json()["accepted"]) == (200, 1)
    (event,) = hooks.events("acme")
    assert event["source"] == {"name": "gh", "type": "http"}
    assert event["metadata"] == {"n": 1, "hook": {"x-github-event": "push", "x-github-delivery": "d-1"}}
    assert "flags" not in event["ingest"]
    other = b'{"user":"cat","n":2}'
    assert (await send(hooks, "gh", other, github(other, "the-one-before-it-and-longer"))).json()["accepted"] == 1


async def test_a_delivery_that_comes_again_is_a_duplicate(hooks: Rig) -> None:
    """Whoever sends it, and whatever the headers say that nobody signed; with the positions of the first."""
    body = b'{"user":"cat"}'
    answers = [(await send(hooks, "gh", body, github(body, delivery=delivery))).json() for delivery in ("d-1", "d-1", "d-2")]
    assert [(answer["accepted"], answer["duplicates"]) for answer in answers] == [(1, 0), (0, 1), (0, 1)]
    assert answers[0]["receipts"][0]["ranges"] == answers[2]["receipts"][0]["ranges"]
    assert len(hooks.events("acme")) == 1


async def test_bytes_are_checked_before_they_are_read(hooks: Rig) -> None:
    """A body that is no JSON fails on its signature; with a right one it is kept in the quarantine, as at every source."""
    assert (await send(hooks, "gh", b"{", github(b"{} "))).json()["code"] == "signature_invalid"
    assert hooks.frames(FrameType.QUARANTINED) == []
    mixed = b'{"user":"cat"}\n{"a":1,"a":2}'
    answer = await send(hooks, "gh", mixed, github(mixed), media="application/x-ndjson")
    assert (answer.json()["accepted"], [bad["code"] for bad in answer.json()["quarantined"]]) == (1, ["key_duplicate"])


async def test_wrong_signatures_are_refused_and_on_record(hooks: Rig) -> None:
    """401 with the reason; past the limit 429; a request without any signature is no attempt. A key of ours does not help."""
    body = b'{"user":"cat"}'
    assert (await hooks.call("/v1/in/gh", body, media=JSON)).json()["code"] == "signature_missing"
    answers = [await send(hooks, "gh", body, github(body, "another-secret-of-16")) for _ in range(6)]
    assert [answer.status for answer in answers] == [401] * 5 + [429]
    assert answers[0].json()["code"] == "signature_invalid"
    assert (await send(hooks, "gh", body, github(body))).status == 200
    await hooks.logins.close()
    assert {event["action"] for event in hooks.events("_tallystick")} == {"tallystick.login_failed"}


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"media": "application/x-www-form-urlencoded"}, 415),
        ({"method": "GET"}, 405),
        ({"headers": [("content-encoding", "gzip")]}, 415),
    ],
)
async def test_other_requests_are_refused(hooks: Rig, options: dict[str, Any], status: int) -> None:
    """Other media types and methods; a compressed body, which would have to be opened before it is checked."""
    body = gzip.compress(b'{"user":"cat"}') if "headers" in options else b'{"user":"cat"}'
    headers = [*github(body), *options.pop("headers", ())]
    assert (await send(hooks, "gh", body, headers, **options)).status == status


async def test_slack_asks_whether_this_is_the_address(hooks: Rig) -> None:
    """The challenge comes back, and no event is made of it; an event that speaks of one is an event."""
    for body, answer in (
        (b'{"token":"x","challenge":"c-1","type":"url_verification"}', {"challenge": "c-1"}),
        (b'{"type":"event_callback","challenge":"c-2","text":"url_verification"}', None),
        (b'{"type":"url_verification"}', None),
    ):
        signature = [("x-slack-request-timestamp", str(NOW)), ("x-slack-signature", "v0=" + sign(b"v0:%d:%b" % (NOW, body)))]
        found = await send(hooks, "chat", body, signature)
        assert found.status == 200
        assert found.json() == answer if answer else found.json()["accepted"] == 1
    assert len(hooks.events("acme")) == 2


async def test_old_deliveries_are_refused(hooks: Rig) -> None:
    """Past the tolerance a recorded delivery is not even a duplicate."""
    body = b'{"user":"cat"}'
    for moment, status in ((NOW - 299, 200), (NOW - 301, 401), (NOW + 301, 401)):
        headers = [("x-slack-request-timestamp", str(moment)), ("x-slack-signature", "v0=" + sign(b"v0:%d:%b" % (moment, body)))]
        assert (await send(hooks, "chat", body, headers)).status == status


async def test_okta_asks_and_sends_with_a_text(hooks: Rig) -> None:
    """The challenge is answered to whoever has the text; events that only it vouches for are flagged."""
    agreed = [("authorization", SECRET)]
    challenge = [("x-okta-verification-challenge", "Me_rShK8JHsTnbyYrWXCEoMGbM_zsZ6k0hLPZ_Pg")]
    answer = await send(hooks, "okta", b"", [*agreed, *challenge], method="GET", media=None)
    assert (answer.status, answer.json()) == (200, {"verification": "Me_rShK8JHsTnbyYrWXCEoMGbM_zsZ6k0hLPZ_Pg"})
    assert (await send(hooks, "okta", b"", challenge, method="GET", media=None)).status == 401
    assert (await send(hooks, "okta", b"", agreed, method="GET", media=None)).status == 400
    body = msgspec.json.encode({"eventType": "com.okta.event_hook", "eventId": "e-1", "data": {"events": [{"uuid": "u-1"}]}})
    for duplicates in (0, 1):
        assert (await send(hooks, "okta", body, agreed)).json()["duplicates"] == duplicates
    (event,) = hooks.events("acme")
    assert event["ingest"]["flags"] == ["unsigned"]
    assert (await send(hooks, "okta", body, [("authorization", SECRET + " ")])).status == 401


async def test_a_signed_id_names_the_delivery(hooks: Rig) -> None:
    """Equal bodies under two ids are two deliveries; several records of one get numbers."""
    body = b'{"user":"cat"}\n{"user":"dog"}'

    def signed(name: str) -> list[tuple[str, str]]:
        mac = sign(b"%b.%d.%b" % (name.encode(), NOW, body))
        return [("x-id", name), ("x-time", str(NOW)), ("x-sig", "v=" + mac)]

    for name, accepted in (("m-1", 2), ("m-1", 0), ("m-2", 2)):
        answer = await send(hooks, "stamped", body, signed(name), media="application/x-ndjson")
        assert answer.json()["accepted"] == accepted
    assert [event["id"] for event in hooks.events("acme")] == ["stamped:m-1:1", "stamped:m-1:2", "stamped:m-2:1", "stamped:m-2:2"]


@pytest.mark.parametrize(
    ("settings", "key", "message"),
    [
        (f'verify = "github"\nsecret = "{SECRET}"', "verify", "needs a tenant"),
        ('verify = "github"\ntenant = "a"', "verify", "needs a secret"),
        ('verify = "github"\ntenant = "a"\nsecret = "short"', "secret", "shorter than 16"),
        (f'verify = "github"\ntenant = "a"\nsecret = "{SECRET}"\nprevious_secret = "x"', "previous_secret", "shorter than 16"),
        ('verify = "standard"\ntenant = "a"\nsecret = "whsec_?"', "secret", "not base64"),
        (f'verify = "slack"\ntenant = "a"\nsecret = "{SECRET}"\nheader = "X"', "header", "knows its own form"),
        (f'verify = "hmac"\ntenant = "a"\nsecret = "{SECRET}"', "verify", "needs the header"),
        (f'verify = "hmac"\ntenant = "a"\nsecret = "{SECRET}"\nheader = "X"\nsigned = "x"', "signed", "the body"),
        (f'verify = "hmac"\ntenant = "a"\nsecret = "{SECRET}"\nheader = "X"\nsigned = "{{id}}{{body}}"', "signed", "id_header"),
        (
            f'verify = "hmac"\ntenant = "a"\nsecret = "{SECRET}"\nheader = "X"\nsigned = "{{timestamp}}{{body}}"',
            "signed",
            "timestamp_header",
        ),
        (f'secret = "{SECRET}"', "secret", "no meaning without `verify`"),
        ('algorithm = "sha1"', "algorithm", "no meaning without `verify`"),
        ('verify = "trust"', "verify", "Invalid enum value 'trust'"),
    ],
)
def test_what_a_configuration_may_not_say(tmp_path: Path, settings: str, key: str, message: str) -> None:
    """Each is a ConfigError with the line of the setting at fault."""
    path = tmp_path / "tallystick.toml"
    text = f'[sources.x]\ntype = "http"\n{settings}\n'
    path.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        build_plans(load_config(path), compile_query)
    line = next(number for number, one in enumerate(text.split("\n"), 1) if one.startswith(f"{key} ="))
    assert (caught.value.place or "").endswith(f"tallystick.toml:{line}")
