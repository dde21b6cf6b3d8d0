"""One harness per type of transform: its table, events that it concerns, and what it may do to them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class TransformHarness:
    """``table``: the settings, as TOML; ``concerned``: members of events that it changes, takes away or refuses.

    ``others``: of events that it leaves alone, in a batch of their own. ``wrong``: a setting of the wrong type.
    """

    table: str
    concerned: list[dict[str, Any]]
    others: list[dict[str, Any]]
    wrong: str
    files: dict[str, str] = field(default_factory=dict)


HARNESSES: dict[str, TransformHarness] = {
    "redact": TransformHarness(
        "", [{"metadata": {"password": "x"}}, {"reason": "ghp_" + "a1B2" * 9}], [{"metadata": {"name": "x"}}], 'action = "shout"'
    ),
    "filter": TransformHarness('drop = "action:a.b"', [{"action": "a.b"}], [{"action": "a.c"}], "drop = 1"),
    "set": TransformHarness(
        'values = { "metadata.team" = "red", severity = 3 }\nwhere = "action:a.b"',
        [{"action": "a.b"}, {"action": "a.b", "metadata": {"team": 1}}, {"action": "a.b", "severity": 1}],
        [{"action": "a.c"}],
        "values = 1",
    ),
    "rename": TransformHarness(
        'paths = { "metadata.who" = "actor.name" }',
        [{"metadata": {"who": "ann"}}, {"metadata": {"who": {"no": "text"}}}],
        [{"metadata": {"whose": "ann"}}, {}],
        "paths = 1",
    ),
    "remove": TransformHarness(
        'paths = ["metadata.debug", "context.session_id"]',
        [{"metadata": {"debug": {"a": [1]}}}, {"context": {"session_id": "s"}}],
        [{"metadata": {"bug": 1}}, {}],
        "paths = 1",
    ),
    "split": TransformHarness(
        'path = "metadata.items"',
        [
            {"metadata": {"items": [1.50, {"a": "b"}], "x": 1}},
            {"metadata": {"items": list(range(1_001))}},
            {"metadata": {"items": [[]]}},
        ],
        [{"metadata": {"item": [1]}}, {"metadata": {"items": []}}, {"metadata": {"items": "text"}}, {}],
        "path = 1",
    ),
    "sample": TransformHarness(
        'one_in = 1000000000\nforce = "it"\nwhere = "action:a.b"', [{"action": "a.b"}] * 3, [{"action": "a.c"}], "one_in = 1"
    ),
    "enrich": TransformHarness(
        """user_agents = [{}]
geo = [{ database = "iptocc" }]
lookups = [{ file = "people.csv", key = "actor.id", column = "login", columns = { team = "org.team" }, to = "enrichment.own.people" }]
threats = [{ file = "bad.txt", keys = ["context.ip", "metadata.host"] }]
where = "NOT action:a.b"
""",
        [
            {"actor": "ann", "metadata": {"n": 1.50}},
            {"actor": "ann", "context": {"ip": "193.0.6.139", "user_agent": "curl/8.0"}},
            {"context": {"ip": "192.0.2.1"}, "metadata": {"host": "a.bad.example"}},
        ],
        [{"context": {"ip": "10.0.0.1", "user_agent": "-"}}, {"action": "a.b", "actor": "ann"}, {"metadata": {"host": None}}, {}],
        "lookups = 1",
        {"people.csv": "login,team\nann,red\n", "bad.txt": "192.0.2.0/24\nbad.example\n"},
    ),
    "python": TransformHarness(
        'function = "contract.transforms:shaped"\nwhere = "action:a.b"',
        [
            {"action": "a.b", "metadata": {"do": what}}
            for what in ("set", "twice", "none", "raise", "tenant", "id", "time", "text", "nan", "deep")
        ],
        [{"action": "a.c"}],
        'function = "no import path"',
    ),
}


def shaped(event: dict[str, Any]) -> Any:
    """A user's function, good or bad, as the event asks."""
    deep: list[Any] = []
    for _ in range(40):
        deep = [deep]
    match event["metadata"]["do"]:
        case "twice":
            return [event, {**event, "action": "a.d"}]
        case "none":
            return None
        case "raise":
            raise KeyError("user")
        case "tenant":
            return {**event, "tenant": "other"}
        case "id":
            return {**event, "id": "other"}
        case "time":
            return {**event, "occurred_at": "yesterday"}
        case "text":
            return "text"
        case "nan":
            return {**event, "action": float("nan")}
        case "deep":
            return {**event, "metadata": {"x": deep}}
    return {**event, "reason": "set"}
