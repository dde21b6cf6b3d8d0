"""The console's pages, as a browser gets them."""

from __future__ import annotations

import html
import re

import httpx
import msgspec
import pytest

from support.api_rig import Rig, event
from tallystick.config import ConsoleSettings
from tallystick.console.login import issue_code
from tallystick.console.pages import static_file
from tallystick.console.text import visible
from tallystick.delivery.dead_letters import Letter

ORIGIN = {"origin": "http://127.0.0.1:8420"}
HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    "{{7*7}}",
    "{% raw %}",
    "'\"><svg onload=alert(1)>",
    "\u202egnp.exe",
]


def csrf_of(page: httpx.Response) -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', page.text)
    assert found
    return found[1]


async def test_a_stranger_gets_the_sign_in_page_and_nothing_else(rig: Rig) -> None:
    """Every page is a 401 with the form; the form's next leads back; static files are open."""
    async with rig.client(None, headers={"accept": "text/html"}) as client:
        for path in ("/", "/delivery", "/integrity", "/status", "/?q=secret", "/panel", "/live"):
            answer = await client.get(path)
            assert answer.status_code == 401, path
            assert 'action="/login"' in answer.text
            assert "Events" not in answer.text
        assert 'value="/?q=secret"' in (await client.get("/?q=secret")).text
        assert (await client.get("/static/console.css")).status_code == 200
        assert (await client.get("/static/nosuch.js")).status_code == 404
        assert (await client.get("/static/../app.py")).status_code in (401, 404)


async def test_a_code_link_opens_one_session(rig: Rig) -> None:
    """Looking at the link uses nothing up; posting it signs in; a second time it is refused."""
    key_id = rig.admin.split("_")[1]
    code = issue_code(rig.config.data_dir, key_id)
    async with rig.client(None, headers={"accept": "text/html"}) as client:
        for _ in range(2):
            assert code in (await client.get(f"/login?code={code}")).text
        done = await client.post("/login", data={"code": code}, headers=ORIGIN)
        assert done.status_code == 303
        cookie = done.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert (await client.get("/")).status_code == 200
    async with rig.client(None, headers={"accept": "text/html"}) as other:
        again = await other.post("/login", data={"code": code}, headers=ORIGIN)
        assert again.status_code == 401
        assert "used or is too old" in again.text


async def test_logging_out_ends_the_session_on_the_server(rig: Rig, browser: httpx.AsyncClient) -> None:
    """The cookie itself is worth nothing afterwards."""
    page = await browser.get("/")
    cookie = browser.cookies["tallystick"]
    assert (await browser.post("/logout", data={"csrf": csrf_of(page)}, headers=ORIGIN)).status_code == 303
    async with rig.client(None, headers={"cookie": f"tallystick={cookie}", "accept": "text/html"}) as client:
        assert (await client.get("/")).status_code == 401


async def test_revoking_the_key_ends_its_sessions(rig: Rig, browser: httpx.AsyncClient) -> None:
    """A session lives no longer than its key."""
    rig.deps.access.revoke(rig.admin.split("_")[1])
    assert (await browser.get("/")).status_code == 401


async def test_bad_keys_are_refused_counted_and_recorded(rig: Rig) -> None:
    """Each failure is an event without the secret; after many the answer is 429."""
    guess = "ts_nosuchkey000_" + "a" * 43
    async with rig.client(None, headers={"accept": "text/html"}) as client:
        answers = [await client.post("/login", data={"key": guess}, headers=ORIGIN) for _ in range(130)]
        assert {answer.status_code for answer in answers[:100]} == {401}
        assert answers[-1].status_code == 429
        assert int(answers[-1].headers["retry-after"]) >= 1
        assert (await client.post("/login", data={"key": rig.admin}, headers=ORIGIN)).status_code == 303
    await rig.deps.logins.close()
    async with rig.client() as client:
        found = (
            await client.get(
                "/v1/events",
                params={"tenant": "_tallystick", "query": "action:tallystick.login_failed outcome:denied target.id:nosuchkey000"},
            )
        ).text
    assert "anonymous" in found
    assert guess not in found


@pytest.mark.parametrize("headers", [{}, {"origin": "http://evil.example"}, {"origin": "null"}])
async def test_posts_from_elsewhere_are_refused(rig: Rig, browser: httpx.AsyncClient, headers: dict[str, str]) -> None:
    """Without our own Origin nothing is done, token or not."""
    token = csrf_of(await browser.get("/delivery"))
    assert (await browser.post("/delivery/disk/pause", data={"csrf": token}, headers=headers)).status_code == 403
    assert (await browser.post("/login", data={"key": rig.admin}, headers=headers)).status_code == 403
    assert rig.asked == []


async def test_posts_without_the_token_are_refused(rig: Rig, browser: httpx.AsyncClient) -> None:
    """Origin alone is not enough, and a cookie opens no API call that changes something."""
    for data in ({}, {"csrf": "x"}):
        assert (await browser.post("/delivery/disk/pause", data=data, headers=ORIGIN)).status_code == 403
    assert (await browser.post("/v1/destinations/disk/pause", headers=ORIGIN)).status_code == 401
    assert (await browser.get("/v1/limits")).status_code == 200
    assert rig.asked == []


async def test_the_events_page_shows_list_facets_and_histogram(rig: Rig, browser: httpx.AsyncClient) -> None:
    """Sentences, counts and bars are in the HTML itself; the view is on record as a search."""
    await rig.send("acme", [event(1), event(2, outcome="denied", action="role.grant")])
    page = (await browser.get("/", params={"tenant": "acme", "q": "NOT action:tallystick.*"})).text
    assert "was denied" in page
    assert "<strong>2</strong> events" in page
    assert 'class="bar-denied"' in page
    assert "NOT+outcome%3Adenied" in page
    async with rig.client() as client:
        found = (await client.get("/v1/events", params={"tenant": "acme", "query": "action:tallystick.search"})).json()
    assert found["events"][-1]["metadata"]["via"] == "console"


async def test_without_its_record_the_page_is_not_shown(rig: Rig, browser: httpx.AsyncClient) -> None:
    """With the intake down the events page answers 503."""
    await rig.send("acme", [event(1)])
    rig.door.is_down = True
    answer = await browser.get("/", params={"tenant": "acme"})
    assert answer.status_code == 503
    assert "Ana" not in answer.text


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"q": "("}, "cannot be understood"),
        ({"from": "gestern"}, "cannot be understood"),
        ({"tenant": "nosuch"}, "No such tenant"),
        ({"q": "actor:nobody"}, "matches"),
        ({"cursor": "AAAA"}, "cannot be understood"),
        ({}, "curl http://127.0.0.1:8420/v1/events"),
    ],
)
async def test_empty_and_failed_states_say_what_to_do(
    rig: Rig, browser: httpx.AsyncClient, params: dict[str, str], words: str
) -> None:
    """The page is there, with what happened in words and the text that was typed still in its box."""
    answer = await browser.get(
        "/", params={"tenant": "acme", "from": "2020-01-01T00:00:00Z", "to": "2020-01-02T00:00:00Z", **params}
    )
    assert answer.status_code == 200
    assert words in answer.text
    if "q" in params:
        assert f'value="{html.escape(params["q"])}"' in answer.text


@pytest.mark.parametrize("tab", ["summary", "changes", "context", "raw", "delivery", "proof", "nosuch"])
async def test_hostile_content_stays_text(rig: Rig, browser: httpx.AsyncClient, tab: str) -> None:
    """Markup, template syntax and bidi in every place of an event come out escaped, names of fields included."""
    for number, text in enumerate(HOSTILE):
        await rig.send(
            "acme",
            [
                event(
                    number,
                    actor={"type": "user", "id": text, "name": text, "roles": [text]},
                    targets=[{"type": text, "id": text, "name": text}],
                    reason=text,
                    context={"user_agent": text, "session_id": text, "location": text},
                    changes=[{"path": f"/{text}", "op": "replace", "before": text, "after": {text: text}}],
                    metadata={text: text},
                )
            ],
        )
        page = (
            await browser.get("/", params={"tenant": "acme", "open": f"e{number}", "tab": tab, "q": visible(text).replace('"', "")})
        ).text
        assert "<img src=x" not in page
        assert "<script>alert" not in page
        assert "<svg onload" not in page
        assert "\u202e" not in page
        assert ">49<" not in page


async def test_a_megabyte_of_name_does_not_make_a_megabyte_of_page(rig: Rig, browser: httpx.AsyncClient) -> None:
    """Long values are cut in list and panel."""
    await rig.send("acme", [event(1, actor={"type": "user", "id": "x" * 60_000})])
    page = await browser.get("/", params={"tenant": "acme", "open": "e1"})
    assert page.status_code == 200
    assert 'aria-label="Event"' in page.text


async def test_a_panel_of_another_tenants_event_is_like_a_missing_one(rig: Rig) -> None:
    """A key for acme opens nothing of globex."""
    await rig.send("globex", [event(1)])
    key = rig.key("read", tenants=["acme"])
    async with rig.client(None, headers={"accept": "text/html"}) as client:
        await client.post("/login", data={"key": key}, headers=ORIGIN)
        foreign = (await client.get("/panel", params={"tenant": "acme", "open": "e1"})).text
        missing = (await client.get("/panel", params={"tenant": "acme", "open": "e2"})).text
        other = (await client.get("/panel", params={"tenant": "globex", "open": "e1"})).text
    assert foreign.replace("e1", "e2") == missing
    assert "No such event" in other


async def test_the_delivery_page_acts(rig: Rig, browser: httpx.AsyncClient) -> None:
    """Its buttons reach the dispatcher: pause, probe, replay of a range, replay and discard of a letter."""
    await rig.send("acme", [event(1)])
    tenant = rig.deps.tenants.get("acme")
    assert tenant is not None
    rig.deps.dead_letters.append(
        "hook", [Letter(destination="hook", tenant="acme", handle=tenant.handle, index=0, reason="<b>413</b>", cut="c", at=1.0)]
    )
    rig.answers["probe"] = {"answer": "delivered", "reason": "", "state": "running"}
    page = await browser.get("/delivery")
    token = {"csrf": csrf_of(page)}
    assert "&lt;b&gt;413&lt;/b&gt;" in page.text
    assert (await browser.post("/delivery/disk/pause", data=token, headers=ORIGIN)).status_code == 303
    assert "says delivered" in (await browser.post("/delivery/hook/probe", data=token, headers=ORIGIN)).text
    span = {"tenant": "acme", "first_index": "0", "last_index": "0"}
    assert (await browser.post("/delivery/hook/replay", data={**token, **span}, headers=ORIGIN)).status_code == 303
    assert (
        await browser.post("/delivery/hook/replay", data={**token, **span, "first_index": "x"}, headers=ORIGIN)
    ).status_code == 400
    assert (await browser.post("/dead-letters/hook:0/discard", data={**token, "reason": "  "}, headers=ORIGIN)).status_code == 400
    assert (
        await browser.post("/dead-letters/hook:0/discard", data={**token, "reason": "too big"}, headers=ORIGIN)
    ).status_code == 303
    assert [op for op, _ in rig.asked] == ["pause", "probe", "replay", "discard"]


async def test_a_walk_goes_on_from_form_to_form(rig: Rig, browser: httpx.AsyncClient) -> None:
    """Each step carries the sums and the signed place to the next; the last one says that it is done. A forged place is refused."""
    await rig.send("acme", [event(1)])
    finding = {
        "kind": "changed",
        "tenant": "acme",
        "place": "<b>",
        "detail": "other bytes",
        "events": 1,
        "first_index": 0,
        "last_index": 0,
    }
    rig.answers["reconcile"] = {"cuts": 1, "events": 7, "findings": [finding], "next": "there"}
    token = {"csrf": csrf_of(await browser.get("/delivery")), "tenant": ""}
    first = await browser.post("/delivery/disk/reconcile", data=token, headers=ORIGIN)
    assert "7 events in 1 cuts compared" in first.text
    assert "&lt;b&gt;" in first.text
    fields = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', first.text.split("data-walk")[1]))
    rig.answers["reconcile"] = {"cuts": 1, "events": 3, "next": None}
    last = await browser.post("/delivery/disk/reconcile", data=fields, headers=ORIGIN)
    assert "Done: 10 events in 2 cuts compared" in last.text
    assert "data-walk" not in last.text
    assert [args["after"] for _, args in rig.asked] == [None, "there"]
    forged = await browser.post("/delivery/disk/reconcile", data={**fields, "after": "there"}, headers=ORIGIN)
    assert forged.status_code == 422
    assert (await browser.post("/delivery/disk/reconcile", data={"tenant": ""}, headers=ORIGIN)).status_code == 403


async def test_integrity_and_status_are_there_to_read(rig: Rig, browser: httpx.AsyncClient) -> None:
    """Sizes, keys and the commands that check them; marks of every tenant."""
    await rig.send("acme", [event(1)])
    integrity = (await browser.get("/integrity")).text
    status = (await browser.get("/status")).text
    assert "tallystick verify --url http://127.0.0.1:8420" in integrity
    assert "audit.example.com/log/root+" in integrity
    assert "Accepting events" in status
    assert "acme" in status


async def test_a_reader_gets_no_buttons(rig: Rig) -> None:
    """Without `operate` the delivery page shows and does nothing."""
    async with rig.client(None, headers={"accept": "text/html"}) as client:
        await client.post("/login", data={"key": rig.key("read")}, headers=ORIGIN)
        page = await client.get("/delivery")
        token = csrf_of(page)
        refused = await client.post("/delivery/disk/pause", data={"csrf": token}, headers=ORIGIN)
    assert ">pause<" not in page.text
    assert refused.status_code == 403


async def test_errors_in_the_browser_are_pages(rig: Rig, browser: httpx.AsyncClient) -> None:
    """Somebody who follows a bad link reads a sentence, not JSON."""
    answer = await browser.get("/nosuch")
    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("text/html")


@pytest.mark.parametrize(
    "target", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)", "/x\r\nset-cookie: a=b"]
)
async def test_signing_in_leads_nowhere_else(rig: Rig, target: str) -> None:
    """`next` is a path of this server or is ignored."""
    async with rig.client(None) as client:
        answer = await client.post("/login", data={"key": rig.admin, "next": target}, headers=ORIGIN)
    assert answer.headers["location"] == "/"


async def test_a_login_link_leads_to_its_page_and_nowhere_else(rig: Rig) -> None:
    """`next` of a link comes back in its form; what is no path of this server becomes the first page."""
    async with rig.client(None) as client:
        page = (await client.get("/login", params={"code": "c", "next": "/?tenant=northwind&from=-7d"})).text
        assert 'name="next" value="/?tenant=northwind&amp;from=-7d"' in page
        assert 'name="next" value="/"' in (await client.get("/login", params={"code": "c", "next": "//evil.example"})).text


async def test_a_notice_is_shown_until_it_is_dismissed(rig: Rig, browser: httpx.AsyncClient) -> None:
    """Escaped, on the events page; its link leads back to the same view; another text is shown again."""
    assert "Dismiss" not in (await browser.get("/")).text
    rig.deps.config = msgspec.structs.replace(rig.config, console=ConsoleSettings(notice="Who <did> it?"))
    page = (await browser.get("/?from=-7d")).text
    assert "Who &lt;did&gt; it?" in page
    link = re.search(r'href="(/notice/read[^"]+)"', page)
    assert link
    done = await browser.get(html.unescape(link[1]))
    assert (done.status_code, done.headers["location"]) == (303, "/?tenant=acme&from=-7d")
    assert "Dismiss" not in (await browser.get("/")).text
    assert (await browser.get("/notice/read?next=//evil.example")).headers["location"] == "/"
    rig.deps.config = msgspec.structs.replace(rig.config, console=ConsoleSettings(notice="Another"))
    assert "Another" in (await browser.get("/")).text


def test_scripts_and_styles_stay_small() -> None:
    """60 kB for everything as it is, so less compressed, and nothing in it comes from elsewhere."""
    names = ("console.css", "console.js", "proof.js", "walk.js")
    assert sum(len(static_file(name)[0]) for name in names) <= 60_000
    for name in names:
        assert b"http://" not in static_file(name)[0].replace(b"http://www.w3.org/2000/svg", b"")
        assert b"https://" not in static_file(name)[0]
