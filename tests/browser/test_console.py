"""The console in a real browser, on a real server."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import uuid
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from support.server import ADMIN_KEY, Server, wait_for

LIST = "/?tenant=acme"


def params(page: Page) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.url).query)


def test_a_row_opens_beside_the_list_and_back_closes_it(page: Page) -> None:
    """The panel is in the URL; back, forward and reload show what the URL says."""
    page.goto(f"{LIST}&q=action:role.grant")
    page.locator(".row", has_text="granted role admin to Bob").locator(".open").click()
    expect(page.locator("#panel h2")).to_contain_text("Ana (support) granted role admin to Bob")
    assert params(page)["open"] == ["grant"]
    page.locator("#panel [data-tab]", has_text="Changes").click()
    expect(page.locator("#panel ins")).to_have_text("admin")
    page.reload()
    expect(page.locator("#panel ins")).to_have_text("admin")
    page.go_back()
    expect(page.locator("#panel dl.facts")).to_be_visible()
    page.go_back()
    expect(page.locator("#panel")).to_have_count(0)
    page.go_forward()
    expect(page.locator("#panel h2")).to_be_visible()


def test_keys_move_open_verify_and_close(page: Page) -> None:
    """j, enter, v, esc and / do what the help says."""
    page.goto(f"{LIST}&q=action:role.grant")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.locator("#panel")).to_be_visible()
    page.keyboard.press("v")
    expect(page.locator("#panel .verdict.good")).to_contain_text("Recomputed in this browser just now")
    page.keyboard.press("Escape")
    expect(page.locator("#panel")).to_have_count(0)
    page.keyboard.press("/")
    expect(page.locator("input[type=search]")).to_be_focused()
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()


def test_the_proof_is_recomputed_up_to_the_root_log(page: Page) -> None:
    """Both levels are checked and the path is drawn."""
    page.goto(f"{LIST}&open=grant&tab=proof")
    expect(page.locator("#panel .verdict.good")).to_contain_text("and that in the root log")
    expect(page.locator("#panel .steps .good")).to_have_count(5)
    expect(page.locator("#panel .path-drawing.good")).to_be_visible()


@pytest.mark.parametrize("what", ["line", "path", "signature"])
def test_a_changed_byte_turns_the_proof_red(page: Page, what: str) -> None:
    """One changed character in the line, in a hash of the path or in the signature, and nothing is green."""

    def change(route: Route) -> None:
        text = route.fetch().text()
        if what == "path" and "/proof" in route.request.url:
            text = re.sub(r"(index \d+\n)(.)", lambda m: m[1] + ("A" if m[2] != "A" else "B"), text, count=1)
        elif what == "signature" and "/proof" in route.request.url:
            text = re.sub(r"(— \S+ .{20})(.)", lambda m: m[1] + ("A" if m[2] != "A" else "B"), text)
        elif what == "line" and "/proof" not in route.request.url:
            text = text.replace('"after":"admin"', '"after":"owner"')
        route.fulfill(body=text, status=200, content_type="text/plain")

    page.route(re.compile(r"/v1/events/grant"), change)
    page.goto(f"{LIST}&open=grant&tab=proof")
    expect(page.locator("#panel .verdict.bad")).to_be_visible()
    expect(page.locator("#panel .verdict.good")).to_have_count(0)


def test_new_events_slide_in_and_wait_while_paused(page: Page, server: Server) -> None:
    """Following live, an event appears by itself; paused, it is counted and shown on demand."""
    mark = uuid.uuid4().hex
    page.goto(f"{LIST}&q=metadata.mark:{mark}+OR+action:role.grant")
    switch = page.locator("[data-live-switch]")
    with page.expect_request(re.compile("/live")):
        switch.click()
    expect(switch).to_contain_text("live")
    page.wait_for_timeout(300)  # the stream's first byte is no event that a page can wait for

    def send(name: str) -> None:
        event = {"tenant": "acme", "action": "badge.open", "actor": name, "outcome": "success", "metadata": {"mark": mark}}
        server.http.post("/v1/events", json=event).raise_for_status()

    send("first")
    expect(page.locator(".row.fresh", has_text="first opened badge")).to_be_visible()
    switch.click()
    send("second")
    expect(switch).to_contain_text("1 new")
    expect(page.locator(".row", has_text="second opened badge")).to_have_count(0)
    switch.click()
    expect(page.locator(".row.fresh", has_text="second opened badge")).to_be_visible()


def test_a_facet_includes_and_excludes(page: Page) -> None:
    """A click narrows the list and marks the value; alt-click or the minus takes it out."""
    page.goto(LIST)
    page.locator(".facets .value", has_text="denied").click()
    expect(page.locator("#events .row")).to_have_count(1)
    assert params(page)["q"] == ["outcome:denied"]
    page.locator(".facets .value", has_text="denied").click(modifiers=["Alt"])
    expect(page.locator("input[type=search]")).to_have_value("outcome:denied NOT outcome:denied")


def test_dragging_over_the_histogram_zooms(page: Page) -> None:
    """The range that was drawn over is in the URL afterwards."""
    page.goto(LIST)
    box = page.locator(".chart svg").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + 20, steps=5)
    with page.expect_navigation():
        page.mouse.up()
    assert params(page)["from"][0] < params(page)["to"][0]
    expect(page.locator("select[name=from]")).to_contain_text("this range")


@pytest.mark.parametrize("tab", ["summary", "context", "raw"])
def test_hostile_events_are_shown_and_do_nothing(page: Page, tab: str) -> None:
    """Names that are markup, template syntax or bidi controls are text; the page fixture fails on any script, dialog or violation."""
    for number in range(4):
        page.goto(f"{LIST}&q=action:odd.thing&open=hostile-{number}&tab={tab}")
        expect(page.locator("#panel h2")).to_be_visible()
        expect(page.locator("#panel img, .row img")).to_have_count(0)
    expect(page.locator("#events")).to_contain_text("<img src=x onerror=alert(1)>")
    expect(page.locator("#events")).to_contain_text("{{7*7}}")


def test_an_operator_pauses_and_resumes(page: Page) -> None:
    """The buttons work with the page's own Origin and token, and the row says what is now."""
    page.goto("/delivery")
    for verb, words in (("pause", "paused by an operator"), ("resume", "running")):
        page.locator("#destinations tr", has_text="disk").get_by_role("button", name=verb).click()
        page.wait_for_url("**/delivery")

        def says(wanted: str = words) -> bool:
            page.reload()
            return wanted in page.locator("#destinations tr", has_text="disk").inner_text()

        wait_for(says, words)


def test_every_page_loads_in_both_colour_schemes(page: Page) -> None:
    """Nothing is missing, blocked or broken, light or dark; the fixture looks at the browser's own complaints."""
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for path in (LIST, "/delivery", "/integrity", "/status", "/docs", f"{LIST}&q=("):
            assert page.goto(path).status == 200  # type: ignore[union-attr]


def test_it_reads_without_script(server: Server, chromium: Browser, session_state: object) -> None:
    """List, panel and every page are there without JavaScript; a click on a row is an ordinary link."""
    context = chromium.new_context(storage_state=session_state, base_url=server.url, java_script_enabled=False)  # type: ignore[arg-type]
    page = context.new_page()
    page.goto(f"{LIST}&q=action:role.grant")
    page.locator(".row .open").first.click()
    expect(page.locator("#panel h2")).to_be_visible()
    page.goto(f"{LIST}&open=grant&tab=proof")
    expect(page.locator("#panel .verdict")).to_contain_text("tallystick verify")
    context.close()


def test_signing_out(server: Server, chromium: Browser) -> None:
    """A session of its own, so that the others keep theirs."""
    context = chromium.new_context(base_url=server.url)
    page = context.new_page()
    page.goto("/status")
    page.fill("input[name=key]", ADMIN_KEY)
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("h1")).to_have_text("Accepting events")
    page.get_by_role("button", name="Sign out").click()
    page.goto("/status")
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()
    context.close()


def test_the_commands_of_the_integrity_page_work_as_pasted(page: Page, server: Server, tmp_path: Path) -> None:
    """Each block runs in a shell with nothing but the key: verify and its head, plain curl, and hashes by hand."""
    page.goto("/integrity")
    blocks = page.locator("pre.command").all_inner_texts()
    assert len(blocks) == 4
    environment = {
        **os.environ,
        "TALLYSTICK_KEY": ADMIN_KEY,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }

    def paste(block: str) -> tuple[int, str]:
        done = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", block], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120
        )
        assert done.returncode in (0, 5), f"{block}\n{done.stdout}\n{done.stderr}"
        return done.returncode, done.stdout

    code, first = paste(blocks[0])
    assert (code, [text.partition(":")[0] for text in json.loads(first)["not_proven"]]) == (5, ["freshness"])
    code, again = paste(blocks[1])
    assert (code, json.loads(again)["tier"]) == (0, "remembered head")
    hashed, leaf = paste(blocks[2])[1].splitlines()[-2:]
    assert hashed.split()[0] == leaf
    assert re.fullmatch(r"[0-9a-f]{64} +-\n", paste(blocks[3])[1])
    line = (tmp_path / "events.jsonl").read_bytes().split(b"\n")[0]
    assert paste(blocks[3].splitlines()[-1])[1].split()[0] == hashlib.sha256(b"\0" + line).hexdigest()
