"""The console's dashboards in a real browser, their numbers against the API's."""

from __future__ import annotations

import shutil

import pytest
from playwright.sync_api import Page, expect

from support.axe import serious_faults
from support.server import Server, wait_for


def numbers(page: Page, table: str, row: str) -> list[int]:
    """The numbers of a table's row, as they are shown."""
    cells = page.locator(f"{table} tbody tr", has_text=row).locator("td.num").all_inner_texts()
    return [int(cell.split()[0].replace(",", "")) for cell in cells]


def row_of(server: Server, name: str) -> dict[str, int]:
    rows = server.http.get("/v1/destinations").raise_for_status().json()["destinations"]
    return next(row for row in rows if row["name"] == name)


@pytest.mark.parametrize("name", ["disk", "store"])
def test_the_account_is_the_apis_and_balances(page: Page, server: Server, name: str) -> None:
    """The equation on the page has the API's numbers, its sides are equal, and the page says so."""

    def same() -> bool:
        before = row_of(server, name)
        page.goto("/delivery")
        shown = numbers(page, "#accounts", name)
        told = [
            before["accepted"],
            before["delivered"],
            sum(before["filtered"].values()),
            before["dead_lettered"],
            before["pending"],
        ]
        return shown == told and shown[0] > 60

    wait_for(same, f"{name}: the page and the API to be of the same moment")
    accepted, *outcomes = numbers(page, "#accounts", name)
    assert accepted == sum(outcomes)
    expect(page.locator("#accounts tr", has_text=name)).to_contain_text("balances")


def test_reconcile_walks_to_its_end_and_names_what_is_missing(page: Page, server: Server) -> None:
    """One press walks through all steps; an object that was taken away is named, and with the box ticked comes back."""
    wait_for(lambda: row_of(server, "store")["pending"] == 0, "everything to be in the store")
    objects = server.directory / "objects"
    taken = sorted(path for path in objects.rglob("*acme*/**/*.jsonl*") if path.is_file())[0]
    shutil.move(taken, server.directory / "taken")
    for is_repairing, words in ((False, "1 difference."), (True, "1 repaired."), (False, "no differences.")):
        page.goto("/delivery")
        form = page.locator("form", has=page.get_by_role("button", name="Reconcile"))
        if is_repairing:
            form.get_by_role("checkbox").check()
        form.get_by_role("button", name="Reconcile").click()
        expect(page.locator("#walk [role=status]")).to_contain_text("Done:")
        expect(page.locator("#walk [role=status]")).to_contain_text(words)
    assert taken.read_bytes() == (server.directory / "taken").read_bytes()


@pytest.mark.parametrize("path", ["/delivery", "/status", "/integrity", "/retention", "/?tenant=acme"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(page: Page, path: str, scheme: str) -> None:
    """Contrast, names and structure as axe-core judges them, in both colour schemes."""
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.goto(path)
    assert serious_faults(page) == []


def test_an_actor_and_a_target_are_a_key_away(page: Page, server: Server) -> None:
    """`g a` and `g t` lead from an event to their pages; the counts are the API's, and both pages stand before axe."""
    page.goto("/?tenant=acme&q=action:role.grant&open=grant")
    page.keyboard.press("g")
    page.keyboard.press("a")
    expect(page.locator("h1")).to_have_text("Ana")
    found = server.http.get("/v1/histogram", params={"tenant": "acme", "query": "actor.id:u_17", "from": "-30d"}).json()
    expect(page.locator(".caption strong")).to_have_text(f"{found['total']:,}")
    assert serious_faults(page) == []
    page.goto("/?tenant=acme&q=action:role.grant&open=grant")
    page.keyboard.press("g")
    page.keyboard.press("t")
    expect(page.locator("h1")).to_have_text("Bob")
    expect(page.locator("#settings tr", has_text="/role")).to_contain_text("admin")
    assert serious_faults(page) == []
    page.locator("#settings").get_by_role("link", name="Ana").click()
    expect(page.locator("h1")).to_have_text("Ana")
