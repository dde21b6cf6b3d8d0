"""Sealing at intake: what leaves the line, what comes back, who is not sealed, and that the keys are there first."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import msgspec
import pytest

from tallystick.config import load_config
from tallystick.errors import ConfigError
from tallystick.evidence.origin import event_origin
from tallystick.privacy.keys import KeyStore
from tallystick.privacy.opening import Opener
from tallystick.privacy.subjects import SubjectKeys
from tallystick.sources.retention import ClassRules
from tallystick.sources.sealing import Sealing

from .conftest import Rig, event, ndjson

CONFIGURATION = """
[privacy.default]
seal = ["actor.id", "actor.name", "context.ip", "metadata.mail"]
subjects_max = 3
[retention.classes.security]
where = "category:authentication"
"""
ANA = {"type": "user", "id": "u_ana", "name": "Ana Smith"}


def seal_with(rig: Rig, tmp_path: Path, text: str = CONFIGURATION) -> Opener:
    path = tmp_path / "privacy.toml"
    path.write_text(text)
    config = load_config(path)
    rig.service.sealing = Sealing(config, rig.keys, "log.example.com")
    rig.service.rules = ClassRules(config)
    keys = KeyStore.open(rig.keys.dir)
    return Opener(keys, SubjectKeys(keys), partial(event_origin, "log.example.com"))


async def test_sealed_members_leave_the_line_and_open_again(rig: Rig, tmp_path: Path) -> None:
    """Nothing of them is in the journal's line, whatever its class; who has the keys gets the event as it was sent."""
    opener = seal_with(rig, tmp_path)
    sent = event(id="e1", actor=ANA, category="authentication", context={"ip": "10.1.2.3"}, metadata={"mail": "a@b.c", "n": 1.50})
    await rig.accept(body=ndjson(sent, event(id="e2", actor=ANA)))
    first, second = rig.events("default")
    assert not {"Ana Smith", "u_ana", "10.1.2.3", "a@b.c"} & set(msgspec.json.encode(first).decode().split('"'))
    assert first["actor"]["id"] == f"sealed:{first['sealed'][0]['subject']}" == second["actor"]["id"]
    assert (first["ingest"]["class"], first["metadata"]) == ("security", {"n": 1.50})
    handle = rig.service.tenants.create("default").handle
    line = msgspec.json.encode(first)
    opened, groups = opener.open(handle, line)
    found = msgspec.json.decode(opened)
    assert (found["actor"], found["context"], found["metadata"]) == (ANA, sent["context"], sent["metadata"])
    assert groups == 1
    opener.subjects.erase(handle, "u_ana", opener.subjects.find(handle, "u_ana").skid, 60.0)  # type: ignore[union-attr]
    assert opener.open(handle, line) == (line, 0)


async def test_late_events_of_an_erased_person_lose_the_members(rig: Rig, tmp_path: Path) -> None:
    """No key is made anew; what was dropped is said."""
    opener = seal_with(rig, tmp_path)
    await rig.accept(body=ndjson(event(actor=ANA)))
    handle = rig.service.tenants.create("default").handle
    opener.subjects.erase(handle, "u_ana", opener.subjects.find(handle, "u_ana").skid, 60.0)  # type: ignore[union-attr]
    await rig.accept(body=ndjson(event(actor=ANA)))
    late = rig.events("default")[1]
    assert (late["actor"], "sealed" in late) == ({"type": "user", "id": "erased"}, False)
    assert [one["path"] for one in late["ingest"]["redactions"]] == ["/actor/id", "/actor/name"]


async def test_one_person_too_many_is_refused(rig: Rig, tmp_path: Path) -> None:
    """With a line and a code; nothing is stored in clear instead."""
    seal_with(rig, tmp_path)
    answer = await rig.call(body=ndjson(*(event(actor=f"u_{number}") for number in range(4))))
    assert (answer.status, answer.json()["errors"][0]["code"]) == (422, "subjects_exceeded")


async def test_a_key_store_that_cannot_be_written_holds_the_event_back(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503, nothing stored; once it can be written the event is taken."""
    seal_with(rig, tmp_path)

    def fail(self: object, *arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(SubjectKeys, "_save_page", fail)
        answer = await rig.call(body=ndjson(event(actor=ANA)))
        assert (answer.status, answer.json()["code"]) == (503, "disk_full")
    assert (await rig.call(body=ndjson(event(actor=ANA)))).status == 200
    assert [found["actor"].get("name") for found in rig.events("default")] == [None]


async def test_other_tenants_are_not_sealed(rig: Rig, tmp_path: Path) -> None:
    """Sealing is a tenant's own."""
    seal_with(rig, tmp_path)
    await rig.accept(body=ndjson(event(tenant="globex", actor=ANA)))
    assert rig.events("globex")[0]["actor"] == ANA


@pytest.mark.parametrize(
    "text", ['seal = ["actor.type"]', 'seal = ["metadata", "metadata.a"]', 'seal = ["reason"]\nsubject = "action"', "seal = []"]
)
def test_a_bad_table_is_refused_with_its_line(tmp_path: Path, text: str) -> None:
    """What cannot be sealed, overlaps or names nobody is a fault of the file."""
    path = tmp_path / "bad.toml"
    path.write_text(f"[privacy.acme]\n{text}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert caught.value.place in (f"{path}:2", f"{path}:3")
