"""`/v1/erasures`: two owners, the cool-off, holds, what is destroyed and what verify then says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.api_rig import CONFIGURATION, Rig
from tallystick.api.erasing import Eraser
from tallystick.errors import NotAcceptingError
from tallystick.evidence.verify import Report
from tallystick.pipeline.verify import VerifyOptions, verify_directory
from tallystick.privacy.keys import KeyStore
from tallystick.privacy.subjects import SubjectKeys

from .test_opening import send_sealed

SHORT = """
[erasure]
cool_off = "0s"
rotate = "1s"
destroy = "0s"
[privacy.acme]
seal = ["actor.id"]
"""


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    rig = Rig.open(tmp_path, CONFIGURATION + SHORT)
    (rig.config.data_dir / "FORMAT").write_text("tallystick 1.0\n")
    yield rig
    await rig.close()


async def ask(rig: Rig, subject: str = "ana", approvers: tuple[str, ...] = ("bea", "carl")) -> str:
    async with rig.client(rig.key("operate", owner="ann")) as client:
        answer = await client.post("/v1/erasures", json={"tenant": "acme", "subject": subject, "basis": "request"})
    assert answer.status_code == 201, answer.text
    for owner in approvers:
        async with rig.client(rig.key("approve", owner=owner)) as client:
            assert (await client.post(f"/v1/erasures/{answer.json()['id']}/approve")).status_code == 200
    return str(answer.json()["id"])


def verified(rig: Rig) -> Report:
    rig.sealer.seal()
    return verify_directory(VerifyOptions(rig.config.data_dir, keys=rig.keys.dir), lambda title: None)


async def test_two_owners_then_the_key_is_gone_everywhere_and_verify_lists_it(rig: Rig) -> None:
    """Nothing happens with one approval; with two nobody opens the event again, the name is in no file, and proofs hold."""
    await send_sealed(rig, 1, "ana-unmistakable")
    await send_sealed(rig, 2, "bob")
    before = verified(rig)
    assert (before.problems, [step.detail for step in before.steps if step.title == "sealed members"]) == ([], ["2 SEALED"])
    name = await ask(rig, "ana-unmistakable", ("bea",))
    async with rig.client(rig.key("approve", owner="bea")) as client:
        assert (await client.post(f"/v1/erasures/{name}/approve")).json()["code"] == "already_approved"
    await Eraser(rig.deps).step()
    async with rig.client() as client:
        assert (await client.get("/v1/events/e1?open=true")).json()["actor"]["id"] == "ana-unmistakable"
        assert (await client.post(f"/v1/erasures/{name}/approve")).json()["due_at"] is not None
        await Eraser(rig.deps).step()
        view = (await client.get(f"/v1/erasures/{name}")).json()
        assert (view["state"], view["subject"], view["events"]) == ("erased", "", 1)
        assert (await client.get("/v1/events/e1?open=true")).json()["actor"]["id"] == f"sealed:{view['key']}"
        assert (await client.get("/v1/events/e2?open=true")).json()["actor"]["id"] == "bob"
        assert (await client.post(f"/v1/erasures/{name}/cancel")).status_code == 409
    report = verified(rig)
    assert report.problems == []
    assert [text.split(": ")[1][:24] for text in report.excused] == ["1 sealed groups ERASED ("]


async def test_a_key_that_is_gone_without_an_entry_fails(rig: Rig) -> None:
    """MISSING: somebody destroyed a key and nobody approved it."""
    await send_sealed(rig, 1, "ana")
    handle = rig.deps.tenants.get("acme").handle  # type: ignore[union-attr]
    store = SubjectKeys(rig.keys)
    store.erase(handle, "ana", store.find(handle, "ana").skid, 60.0)  # type: ignore[union-attr]
    assert ["no entry says why" in problem.message for problem in verified(rig).problems] == [True]


async def test_an_entry_without_two_owners_fails(rig: Rig) -> None:
    """Whoever writes the entry past the server: verify does not believe it, and the key is missing."""
    await send_sealed(rig, 1, "ana")
    handle = rig.deps.tenants.get("acme").handle  # type: ignore[union-attr]
    store = SubjectKeys(rig.keys)
    skid = store.find(handle, "ana").skid  # type: ignore[union-attr]
    store.erase(handle, "ana", skid, 60.0)
    one = {"owner": "bea", "by": "k", "at": "2026-01-01T00:00:00Z"}
    entry = {"type": "erasure", "at": "2026-01-02T00:00:00Z", "subject": "x", "approvals": [one, one], "count": 0, "ranges": []}
    await rig.door.append_entry("acme", "forged", entry)
    assert "two different owners" in verified(rig).problems[0].message


async def test_a_hold_keeps_it_waiting(rig: Rig) -> None:
    """Approved, but what a hold matches stays readable until the hold is lifted."""
    await send_sealed(rig, 1, "ana")
    async with rig.client() as client:
        body = {"tenants": ["acme"], "reason": "a case", "owner": "legal", "review": "2099-01-01"}
        hold = (await client.post("/v1/holds", json=body)).json()["id"]
        name = await ask(rig)
        await Eraser(rig.deps).step()
        view = (await client.get(f"/v1/erasures/{name}")).json()
        assert (view["state"], hold in view["waiting_for"]) == ("approved", True)
        await client.post(f"/v1/holds/{hold}/lift", json={"reason": "case closed"})
        await Eraser(rig.deps).step()
        assert (await client.get(f"/v1/erasures/{name}")).json()["state"] == "erased"


@pytest.mark.parametrize("step", ["entry", "key", "register"])
async def test_cut_short_at_any_step_it_is_finished(rig: Rig, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """A process that dies before the entry, the key or the register: the next one comes to the same end, with one entry."""
    await send_sealed(rig, 1, "ana")
    name = await ask(rig)

    def fail(*arguments: object) -> None:
        raise OSError(5, "cut")

    with monkeypatch.context() as patch:
        if step == "entry":
            rig.door.is_down = True
        elif step == "key":
            patch.setattr(SubjectKeys, "erase", fail)
        else:
            change, calls = rig.deps.erasures.change, iter([False, True])
            patch.setattr(rig.deps.erasures.__class__, "change", lambda self, one: fail() if next(calls) else change(one))
        with pytest.raises((OSError, NotAcceptingError)):
            await Eraser(rig.deps).step()
    rig.door.is_down = False
    await Eraser(rig.deps).step()
    async with rig.client() as client:
        assert (await client.get(f"/v1/erasures/{name}")).json()["state"] == "erased"
    report = verified(rig)
    assert (report.problems, len(report.excused)) == ([], 1)


async def test_it_is_final_when_the_generation_is_destroyed(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second entry comes once no generation key is left that had wrapped the key."""
    await send_sealed(rig, 1, "ana")
    name = await ask(rig)
    await Eraser(rig.deps).step()
    later = SubjectKeys(KeyStore.open(rig.keys.dir), lambda: 4e9)
    assert later.rotate(1.0, 0.0).destroyed >= 1
    await Eraser(rig.deps).step()
    async with rig.client() as client:
        assert (await client.get(f"/v1/erasures/{name}")).json()["state"] == "final"
