"""Every ready definition against a server that answers as its vendor documents, and what all of them have in common."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from support import vendors
from support.running import Running, context_of, until
from support.vendors import Answer, Vendor
from tallystick.config import Duration, Size
from tallystick.errors import ConfigError
from tallystick.sources.pull import PullSettings, PullSource, source, stream
from tallystick.sources.pull.auth import AuthSettings
from tallystick.sources.pull.definition import load_definition, read_definition, ready_definitions
from tallystick.testing.source import MemoryIntake
from tallystick.transforms import load_mappings

READY: dict[str, tuple[Callable[..., Answer], dict[str, Any], str]] = {
    "okta": (vendors.okta, {"auth": {"token": "s"}, "parameters": {"domain": "acme.okta.com"}}, "SSWS s"),
    "github": (vendors.github, {"auth": {"token": "g"}, "parameters": {"org": "acme"}}, "Bearer g"),
    "slack": (vendors.slack, {"auth": {"token": "x"}}, "Bearer x"),
    "google_workspace": (
        vendors.google,
        {"auth": {"key_file": "key.json", "subject": "admin@example.com"}, "each": ("login",)},
        "Bearer g1",
    ),
    "microsoft365": (
        vendors.microsoft365,
        {"auth": {"client_id": "c", "client_secret": "s"}, "parameters": {"tenant_id": "7c0e"}, "each": ("Audit.General",)},
        "",
    ),
    "auth0": (
        vendors.auth0,
        {"auth": {"client_id": "c", "client_secret": "s"}, "parameters": {"domain": "acme.eu.auth0.com"}},
        "Bearer a0",
    ),
    "onepassword": (vendors.onepassword, {"auth": {"token": "p"}, "parameters": {"host": "events.1password.com"}}, "Bearer p"),
}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "BACKOFF_MIN_S", 0.01)
    monkeypatch.setattr(source, "BACKOFF_MAX_S", 0.05)


def make(name: str, vendor: Vendor, directory: Path, **changes: Any) -> PullSource:
    given = {**READY[name][1], **changes}
    auth = dict(given.pop("auth"))
    if name == "google_workspace":
        auth["token_url"] = f"{vendor.base}/token"
        key = rsa.generate_private_key(65537, 2048)
        vendor.public_key = key.public_key()
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        page = {"type": "service_account", "client_email": "s@example.com", "private_key_id": "k1", "private_key": pem.decode()}
        (directory / "key.json").write_text(json.dumps(page))
    if name in ("microsoft365", "auth0"):
        auth["token_url"] = f"{vendor.base}/" + ("oauth/token" if name == "auth0" else "token")
    settings = PullSettings(
        definition=given.pop("definition", name), auth=AuthSettings(**auth), base=vendor.base, allow_private=True,
        **({"interval": Duration("20ms")} | given),
    )  # fmt: skip
    settings.check(directory)
    return PullSource(settings, context_of(directory, name))


@asynccontextmanager
async def pulling(name: str, directory: Path, count: int = 0, **changes: Any) -> AsyncIterator[tuple[Vendor, Running]]:
    with vendors.serve(READY[name][0]) as vendor:
        vendor.add(count)
        run = Running(make(name, vendor, directory, **changes), MemoryIntake())
        try:
            yield vendor, run
        finally:
            run.intake.is_open.set()
            if not run.task.done():
                await run.end()


def numbers(run: Running) -> list[int]:
    """Numbers of the records as the journal keeps them: one for each id."""
    found = {record.id: json.loads(record.data)["number"] for record in run.intake.records}
    return sorted(found.values())


def test_every_ready_definition_is_tested() -> None:
    """None ships that no server here answers for."""
    assert ready_definitions() == sorted(READY)


@pytest.mark.parametrize("name", READY)
async def test_all_pages_then_what_is_new(name: str, tmp_path: Path) -> None:
    """All pages of the first poll, then only new records, each once by its id; the credential goes as the vendor wants it."""
    async with pulling(name, tmp_path, 8) as (vendor, run):
        await until(lambda: numbers(run) == list(range(8)), f"8 records, not {numbers(run)}, {run.page}")
        vendor.add(4, age_s=30)
        await until(lambda: numbers(run) == list(range(12)), "12 records")
        await until(lambda: run.page["lag_seconds"] is not None, "a poll to end")
        assert run.page["reason"] == ""
        wanted = READY[name][2]
        assert {one.headers["authorization"] for one in vendor.requests if "token" not in one.path and wanted} <= {wanted}
        assert next(iter(run.page["streams"].values()))["newest_record_at"] > 0


@pytest.mark.parametrize("name", READY)
async def test_records_become_events(name: str, tmp_path: Path) -> None:
    """The mapping that a definition names, its product's own, understands every record."""
    mapping = load_definition(name, tmp_path).mapping
    assert mapping != "generic"
    async with pulling(name, tmp_path, 4) as (_, run):
        await until(lambda: numbers(run) == list(range(4)), "the records")
        for record in run.intake.records:
            result = load_mappings()[mapping].map(record.data, source_type="pull", peer=record.peer)
            assert result.problems == []
            assert len(result.events) == 1


@pytest.mark.parametrize("name", READY)
async def test_a_restart_goes_on(name: str, tmp_path: Path) -> None:
    """A second run goes on from the saved place: what it takes again has the ids of the first."""
    with vendors.serve(READY[name][0]) as vendor:
        vendor.add(7)
        first = Running(make(name, vendor, tmp_path), MemoryIntake())
        await until(lambda: numbers(first) == list(range(7)) and first.page["lag_seconds"] is not None, "7 records")
        await first.end()
        vendor.add(2, age_s=10)
        second = Running(make(name, vendor, tmp_path), first.intake)
        await until(lambda: numbers(second) == list(range(9)), "9 records")
        await second.end()


@pytest.mark.parametrize("name", READY)
async def test_a_crash_between_page_and_place(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page is committed and its place is not saved: the page is asked for again, and its records have the ids of the first time."""
    with vendors.serve(READY[name][0]) as vendor, monkeypatch.context() as crash:
        vendor.add(7)
        is_crashed = asyncio.Event()
        loop = asyncio.get_running_loop()

        def save(*_: Any) -> None:
            loop.call_soon_threadsafe(is_crashed.set)
            raise SystemError("the process is gone")

        crash.setattr(stream.Places, "save", save)
        first = Running(make(name, vendor, tmp_path), MemoryIntake())
        async with asyncio.timeout(20):
            await is_crashed.wait()
        with pytest.raises(SystemError):
            await first.task
        crash.undo()
        known = {record.id for record in first.intake.records}
        assert known
        second = Running(make(name, vendor, tmp_path), first.intake)
        await until(lambda: numbers(second) == list(range(7)), "7 records")
        await until(lambda: len(second.intake.records) >= 7 + len(known), "those of the first page again")
        assert len({record.id for record in second.intake.records}) == 7
        await second.end()


@pytest.mark.parametrize("name", READY)
async def test_errors_and_limits_are_waited_out(name: str, tmp_path: Path) -> None:
    """A rate limit, server errors, an HTML page, an expired token and a cut reply: all records arrive all the same, each once."""
    with vendors.serve(READY[name][0]) as vendor:
        vendor.add(8)
        vendor.trouble = [
            Answer(429, {"error": "rate limited"}, {"Retry-After": "0"}),
            Answer(503, b"<html>down</html>", {"Content-Type": "text/html"}),
            Answer(200, b"<html>maintenance</html>"),
            Answer(401, {"error": "expired"}),
            Answer(500, {"error": "x"}),
        ]
        run = Running(make(name, vendor, tmp_path), MemoryIntake())
        await until(lambda: numbers(run) == list(range(8)), f"8 records; {run.page}")
        await until(lambda: run.page["reason"] == "", "the reason to go")
        await run.end()


async def test_a_used_up_limit_is_waited_for(tmp_path: Path) -> None:
    """With nothing left the next request comes after the reset that the header names, and not before."""
    async with pulling("okta", tmp_path, 0) as (vendor, run):
        await until(lambda: len(vendor.requests) >= 2, "two polls")
        with vendor.lock:
            vendor.trouble = [Answer(200, [], {"X-Rate-Limit-Remaining": "0", "X-Rate-Limit-Reset": "3600"})]
        await until(lambda: not vendor.trouble, "the limit")
        asked = len(vendor.requests)
        await asyncio.sleep(0.15)
        assert len(vendor.requests) == asked
        await run.end()  # the stop ends the waiting


async def test_status_says_what_is_wrong(tmp_path: Path) -> None:
    """A credential that is refused is a reason in status, and is tried for ever."""
    async with pulling("github", tmp_path, 3) as (vendor, run):
        vendor.authorization = "Bearer other"
        await until(lambda: "status 401" in run.page["reason"] and "Bad credentials" in run.page["reason"], "the reason")
        vendor.authorization = "Bearer g"
        await until(lambda: numbers(run) == [0, 1, 2], "the records")


async def test_late_records_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that appears behind the overlap is found by the next look back."""
    monkeypatch.setattr(stream, "seconds", lambda text: {"6h": 21600.0, "1h": 0.05, "10m": 1.0}.get(text, Duration(text).seconds))
    async with pulling("slack", tmp_path, 3) as (vendor, run):
        await until(lambda: numbers(run) == [0, 1, 2], "the records")
        vendor.add(1, age_s=3600)
        await until(lambda: numbers(run) == [0, 1, 2, 3], "the late one")


async def test_a_slow_intake_holds_it_back(tmp_path: Path) -> None:
    """While a commit waits nothing more is asked, and no place is saved."""
    async with pulling("okta", tmp_path, 20) as (vendor, run):
        run.intake.is_open.clear()
        await until(lambda: vendor.requests, "the first page to be asked for")
        await asyncio.sleep(0.2)
        assert len(vendor.requests) == 1
        assert not list((tmp_path / "sources").rglob("places*"))
        run.intake.is_open.set()
        await until(lambda: numbers(run) == list(range(20)), "all records")
        await until(lambda: list((tmp_path / "sources").rglob("places*")), "a place")


async def test_the_credential_stays_at_its_server(tmp_path: Path) -> None:
    """A next page on another host is not asked for."""
    async with pulling("okta", tmp_path, 0) as (vendor, run):
        with vendor.lock:
            vendor.trouble = [Answer(200, [{"uuid": "x", "number": 0}], {"Link": '<https://evil.example/x>; rel="next"'})]
        await until(lambda: "another server" in run.page["reason"], "the refusal")


async def test_private_addresses_are_refused(tmp_path: Path) -> None:
    """Without allow_private a definition cannot be led into the own network."""
    settings = PullSettings(definition="slack", auth=AuthSettings(token="x"), base="https://127.0.0.1:9", interval=Duration("20ms"))
    run = Running(PullSource(settings, context_of(tmp_path)), MemoryIntake())
    await until(lambda: "not public" in run.page["reason"], "the refusal")
    await run.end()


async def test_content_that_expired_is_a_gap(tmp_path: Path) -> None:
    """Listed content that the vendor no longer has goes into the account, and the rest is read."""
    async with pulling("microsoft365", tmp_path, 0) as (vendor, run):
        uri = f"{vendor.base}/api/v1.0/7c0e/activity/feed/audit/b-1000000"
        await until(lambda: len(vendor.requests) > 3, "the subscription")
        with vendor.lock:
            vendor.trouble = [Answer(200, [{"contentUri": uri}])]
        await until(lambda: run.intake.gaps, "the gap")
        vendor.add(2)
        await until(lambda: numbers(run) == [0, 1], "the rest")


async def test_a_page_over_the_bound(tmp_path: Path) -> None:
    """A reply that is too large is a reason in status; memory stays at the bound."""
    async with pulling("slack", tmp_path, 3, page_max=Size("100B")) as (_, run):
        await until(lambda: "more than 100 bytes" in run.page["reason"], "the reason")


async def test_a_definition_of_ones_own(tmp_path: Path) -> None:
    """One file describes an API that nobody prepared: a time window without pages."""

    def answer(vendor: Vendor, asked: Any) -> Answer:
        found = vendor.within(float(asked.query["from"]), float(asked.query["to"]))
        return Answer(200, {"log": {"rows": [{"k": n, "number": n} for n in found]}})

    (tmp_path / "mine.toml").write_text(
        'name = "mine"\ntitle = "Mine"\ndocumentation = "none"\nbase = "https://mine.example"\nkey = ["k"]\n'
        '[auth]\nkinds = ["basic"]\n[request]\npath = "/log"\nquery = { from = "{since}", to = "{until}" }\n'
        '[page]\nby = "none"\nrecords = "log.rows"\n[progress]\nby = "window"\ntime = "unix"\n'
    )
    READY["mine"] = (answer, {"definition": "mine.toml", "auth": {"user": "u", "password": "p"}}, "")
    try:
        async with pulling("mine", tmp_path, 5) as (vendor, run):
            await until(lambda: numbers(run) == list(range(5)), "the records")
            assert vendor.requests[0].headers["authorization"] == "Basic dTpw"
    finally:
        del READY["mine"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"definition": "none"}, "there is no definition"),
        ({"parameters": {}}, "`org` is missing"),
        ({"parameters": {"org": "a", "x": "b"}}, "no parameter `x`"),
        ({"each": ("a",)}, "one stream"),
        ({"auth": AuthSettings(kind="basic", user="a", password="b")}, "takes no `basic`"),
        ({"auth": AuthSettings()}, "needs `token`"),
        ({"base": "http://example.com"}, "not encrypted"),
    ],
)
def test_settings_that_do_not_fit(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    """What is missing or too much is said before anything is asked."""
    given: dict[str, Any] = {"definition": "github", "parameters": {"org": "acme"}, "auth": AuthSettings(token="x")} | change
    with pytest.raises(ConfigError, match=said):
        PullSettings(**given).check(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('by = "link"', 'by = "body"', "needs `next`"),
        ("{org}", "{nobody}", "is no parameter"),
        ('overlap = "15m"', 'overlap = "soon"', "no duration"),
        ('key = ["_document_id"]', "key = []", "no `key`"),
        ("[page]", "[pages]", "unknown field"),
    ],
)
def test_definitions_that_are_not_valid(old: str, new: str, said: str) -> None:
    """A mistake in a definition is named."""
    text = (Path(source.__file__).parents[1] / "pulls" / "github.toml").read_text()
    with pytest.raises(ConfigError, match=said):
        read_definition(text.replace(old, new), "x")
    assert load_definition("github", Path()).mapping == "github_audit"
