"""The transform as a whole: what it adds, what it leaves, what it costs a configuration that is wrong."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from tallystick.config import load_config
from tallystick.errors import ConfigError
from tallystick.event import Event
from tallystick.event.codec import EventReader
from tallystick.pipeline.cases import run_cases
from tallystick.query.evaluate import compile_query
from tallystick.transforms import build_transform
from tallystick.transforms.enrich import dataset
from tallystick.transforms.enrich.transform import Enrich

EXAMPLE = Path(__file__).parents[4] / "examples" / "enrich" / "tallystick.toml"
PEOPLE = """
lookups = [{ file = "people.csv", key = "actor.id", column = "login", columns = { team = "team" }, to = "enrichment.people" }]
reload_every = "10ms"
"""


def built(tmp_path: Path, table: str, **files: str) -> Enrich:
    for name, text in files.items():
        (tmp_path / name.replace("_", ".")).write_text(text)
    path = tmp_path / "t.toml"
    path.write_text(f'[transforms.known]\ntype = "enrich"\n{table}\n')
    config = load_config(path)
    made = build_transform("known", config.transforms["known"], config, compile_query)
    assert isinstance(made, Enrich)
    return made


def event_of(**members: Any) -> Event:
    batch = EventReader().read(msgspec.json.encode({"action": "user.login", "actor": "ann", **members}), "object")
    assert not batch.errors
    return batch.events[0]


def added(transform: Enrich, event: Event) -> dict[str, Any] | None:
    """What is below ``enrichment`` after the transform; all else must be as it was."""
    before = msgspec.json.decode(msgspec.json.encode(event))
    kept = transform.apply_batch([event])
    found = msgspec.json.decode(msgspec.json.encode(event))
    new = found.pop("enrichment", None)
    assert (found | ({"enrichment": before["enrichment"]} if "enrichment" in before else {})) == before
    assert (kept is None) == (new == before.get("enrichment"))
    return new  # type: ignore[no-any-return]


async def test_the_example_passes_its_tests() -> None:
    """A whole configuration with two tables, a list of threats and user agents, as a user would run it."""
    results, untouched = await run_cases(load_config(EXAMPLE))
    assert len(results) == 3
    assert [(result.name, result.differences) for result in results if not result.ok] == []
    assert untouched.transforms == ["secrets"]


def test_what_the_record_says_is_not_touched_and_nothing_is_overwritten(tmp_path: Path) -> None:
    """What another transform put at the place stays; where something that is no object is in the way, nothing is added."""
    transform = built(
        tmp_path,
        """lookups = [{ file = "people.csv", key = "actor.id", column = "login", columns = { team = "team" }, to = "enrichment.hr.people" }]
threats = [{ file = "bad.txt" }, { file = "worse.txt" }]""",
        people_csv="login,team\nann,red\n",
        bad_txt="192.0.2.0/24\n",
        worse_txt="# none\n192.0.2.1 # why\n",
    )
    there = event_of(context={"ip": "192.0.2.1"})
    there.enrichment = msgspec.Raw(b'{"hr":{"people":{"team":"blue"}},"threats":[{"indicator":"x"}]}')
    found = added(transform, there)
    assert found is not None
    assert found["hr"] == {"people": {"team": "blue"}}
    assert [hit["indicator"] for hit in found["threats"]] == ["x", "192.0.2.0/24", "192.0.2.1"]
    blocked = event_of()
    blocked.enrichment = msgspec.Raw(b'{"hr":1,"audit":{"n":1.50}}')
    transform.apply_batch([blocked])
    assert bytes(blocked.enrichment) == b'{"hr":1,"audit":{"n":1.50}}'
    beside = event_of()
    beside.enrichment = msgspec.Raw(b'{"audit":{"n":1.50}}')
    transform.apply_batch([beside])
    assert bytes(beside.enrichment).startswith(b'{"audit":{"n":1.50},"hr":{"people":{"team":"red","dataset":')


def test_only_chosen_events_and_any_kind_of_value(tmp_path: Path) -> None:
    """A number and true are looked up as JSON writes them; null and objects are no keys; a batch where nothing is known stays."""
    transform = built(
        tmp_path,
        'lookups = [{ file = "n.csv", key = "metadata.n", column = "n", columns = { t = "t" }, to = "enrichment.n" }]\nwhere = "action:user.*"',
        n_csv="n,t\n7,seven\ntrue,yes\nnull,no\n",
    )
    assert (added(transform, event_of(metadata={"n": 7})) or {})["n"]["t"] == "seven"
    assert (added(transform, event_of(metadata={"n": True})) or {})["n"]["t"] == "yes"
    for members in ({"metadata": {"n": None}}, {"metadata": {"n": {"n": 7}}}, {}, {"action": "cart.fill", "metadata": {"n": 7}}):
        assert added(transform, event_of(**members)) is None


def test_a_changed_file_is_taken_and_a_bad_one_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Good, bad, gone and good again: the last good one counts, and the log says each time why."""
    said: list[dict[str, Any]] = []
    log = SimpleNamespace(
        warning=lambda name, **facts: said.append({"name": name, **facts}),
        info=lambda name, **facts: said.append({"name": name, **facts}),
    )
    monkeypatch.setattr(dataset, "log", log)
    transform = built(tmp_path, PEOPLE, people_csv="login,team\nann,red\n")
    path = tmp_path / "people.csv"
    (answers,) = [one.answers for _, adders in transform._by_key for one in adders]

    def team() -> str:
        # a batch would start the thread; the look is ours, so that nothing depends on the time
        found = answers.answering(0.0)(b'"ann"')
        assert found is not None
        return str(msgspec.json.decode(found)["team"])

    assert team() == "red"
    path.write_text("login,team\nann,blue\n")
    answers.look()
    assert team() == "blue"
    path.write_text("login,team\nann,green,too many\n")
    answers.look()
    assert team() == "blue"
    path.unlink()
    answers.look()
    answers.look()
    assert team() == "blue"
    (tmp_path / "new").write_text("login,team\nann,white\n")
    (tmp_path / "new").rename(path)
    answers.look()
    assert team() == "white"
    assert [(one["name"], one.get("error")) for one in said] == [
        ("enrich_file_taken", None),
        ("enrich_file_refused", "line 2: it has 3 cells, the first line 2"),
        ("enrich_file_refused", "it cannot be read: No such file or directory"),
        ("enrich_file_taken", None),
    ]


def test_the_files_are_watched_as_long_as_the_transform_lives(tmp_path: Path) -> None:
    """From the first batch on, without any further event; the thread ends with the transform."""
    transform = built(tmp_path, PEOPLE, people_csv="login,team\nann,red\n")
    assert not [one for one in threading.enumerate() if one.name == "enrich-files"]
    assert (added(transform, event_of()) or {})["people"]["team"] == "red"
    (watcher,) = [one for one in threading.enumerate() if one.name == "enrich-files"]
    (answers,) = [one.answers for _, adders in transform._by_key for one in adders]
    taken = threading.Event()
    take = answers._take
    answers._take = lambda data: (take(data), taken.set())  # type: ignore[method-assign,assignment,func-returns-value]
    path = tmp_path / "people.csv"
    path.write_text("login,team\nann,blue\n")
    os.utime(path, (1, 1))
    assert taken.wait(20)
    assert (added(transform, event_of()) or {})["people"] == {
        "team": "blue",
        "dataset": {"name": "people.csv", "date": "1970-01-01T00:00:01Z"},
    }
    del transform
    gc.collect()
    watcher.join(20)
    assert not watcher.is_alive()


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("", "adds nothing"),
        ('geo = [{ database = "nosuch.mmdb" }]', "nosuch.mmdb: it cannot be read"),
        ('geo = [{ database = "people.csv" }]', "it is no MMDB file"),
        ('geo = [{ database = "iptocc", to = "metadata.geo" }]', "is not below enrichment"),
        ('geo = [{ database = "iptocc", key = "context.nosuch" }]', "no member"),
        ('geo = [{ database = "iptocc" }, { database = "iptocc" }]', "two additions meet"),
        ('geo = [{ database = "iptocc", to = "enrichment" }]', "belongs to all transforms"),
        ('user_agents = [{ to = "enrichment.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a" }]', "deeper than"),
        ('threats = [{ file = "people.csv" }]', "no address, network, domain or hash"),
        ('threats = [{ file = "people.csv", note = "team" }]', "say which `column`"),
        (PEOPLE.replace('"team" }', '"dataset" }'), "nothing can go to 'dataset'"),
        (PEOPLE.replace('{ team = "team" }', "{}"), "`columns` is empty"),
        (PEOPLE.replace('column = "login"', 'column = "name"'), "the column 'name' must be there once"),
        (PEOPLE + 'file_max = "8B"', "more than the 8 of `file_max`"),
        (PEOPLE.replace("10ms", "0s"), "at least 10ms"),
        (PEOPLE + "rows_max = 1", "more than the 1 rows"),
    ],
)
def test_what_is_wrong_is_refused_with_its_line(tmp_path: Path, table: str, words: str) -> None:
    """A table that is not there, no table, too large, or two additions at one place."""
    with pytest.raises(ConfigError) as caught:
        built(tmp_path, table, people_csv="login,team\nann,red\nbob,blue\n")
    assert words in str(caught.value)
    assert f"{tmp_path / 't.toml'}:" in str(caught.value)


def test_a_package_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to install."""
    import sys

    monkeypatch.setitem(sys.modules, "iptocc", None)
    with pytest.raises(ConfigError) as caught:
        built(tmp_path, 'geo = [{ database = "iptocc" }]')
    assert "tallystick[server,enrich]" in str(caught.value)
