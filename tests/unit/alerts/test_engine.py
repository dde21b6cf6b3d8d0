"""What each kind of rule makes of events, and that its state is a value."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tallystick.alerts.engine import ACTION, Alert, Engine, RuleState
from tallystick.alerts.rule import Rule, read_rules

T0 = 1_770_000_000.0


def rule(body: str, name: str = "r") -> Rule:
    text = f'[[rules]]\nname = "{name}"\ntitle = "t"\nseverity = "high"\n{body}\n'
    return read_rules(text.encode(), "r.toml").rules[0]


def event(action: str = "a.b", actor: str = "u", **more: Any) -> dict[str, Any]:
    return {"id": f"e{len(more)}", "tenant": "acme", "action": action, "actor": {"type": "user", "id": actor}, **more}


class Stream:
    """An engine, and events that come to it one a number."""

    def __init__(self, *rules: Rule, groups: int = 100) -> None:
        self.rules, self.groups, self.seq = rules, groups, 0
        self.engine = Engine(rules, groups)

    def take(self, second: float, one: dict[str, Any]) -> list[Alert]:
        self.seq += 1
        return self.engine.take(one, T0 + second, self.seq)

    def again(self) -> None:
        """A new engine that goes on where this one is, over JSON as a cursor keeps it."""
        kept = msgspec.json.encode(self.engine.state())
        self.engine = Engine(self.rules, self.groups)
        self.engine.restore(msgspec.json.decode(kept, type=dict[str, RuleState]))


def test_match_fires_for_each_event_and_no_other() -> None:
    """The alert is an event that names rule, group and what fired it."""
    stream = Stream(rule('query = "action:a.b"\ngroup = ["actor", "targets.id"]'))
    (alert,) = stream.take(0, event(context={"ip": "10.0.0.1"}))
    assert stream.take(1, event("a.c")) == []
    assert alert.tenant == "acme"
    assert alert.event["action"] == ACTION
    assert alert.event["severity"] == 4
    assert alert.event["context"] == {"ip": "10.0.0.1"}
    assert alert.event["metadata"]["group"] == {"actor": "u", "targets.id": ""}
    assert alert.event["metadata"]["actor"] == {"type": "user", "id": "u"}


def test_threshold_slides_and_counts_by_group_and_tenant() -> None:
    """Three within the window fire; three over a longer time, or of different groups or tenants, do not."""
    stream = Stream(rule('query = "action:a.b"\nkind = "threshold"\ncount = 3\nwindow = "10s"\ngroup = ["actor"]'))
    fired = [bool(stream.take(at, event())) for at in (0, 6, 12, 13, 14)]
    assert fired == [False, False, False, True, False]  # 6, 12, 13; 14 begins anew
    stream = Stream(*stream.rules)
    assert not any(stream.take(0, event(actor=f"u{n}")) for n in range(5))
    assert not any(stream.take(0, event("a.b", "w", tenant=name)) for name in ("x", "y", "z"))


def test_distinct_counts_values_not_events() -> None:
    """Elements of lists are values; a value that came again keeps its last time."""
    stream = Stream(
        rule('query = "action:a.b"\nkind = "distinct"\nfield = "targets.id"\ncount = 3\nwindow = "10s"\ngroup = ["actor"]')
    )
    assert not any(stream.take(n, event(targets=[{"id": "x"}])) for n in range(5))
    (alert,) = stream.take(6, event(targets=[{"id": "y"}, {"id": "z"}]))
    assert alert.event["metadata"]["values"] == ["x", "y", "z"]
    assert stream.take(7, event()) == []


@pytest.mark.parametrize("is_looked_at", [True, False])
def test_absence_fires_once_whoever_looks(is_looked_at: bool) -> None:
    """Found by the clock or by the next event behind the gap, it is the same alert with the same id."""
    stream = Stream(rule('query = "action:a.b"\nkind = "absence"\nwindow = "5m"\ngroup = ["actor"]'))
    assert stream.take(0, event()) == []
    assert stream.engine.due(T0 + 300) == []
    alerts = stream.engine.due(T0 + 301) if is_looked_at else []
    alerts += stream.take(400, event())
    (alert,) = alerts
    assert alert.event["id"] == "alert:r:2fc8d4820f4087251a6d50c87887bea1"
    assert (alert.event["occurred_at"], alert.event["metadata"]["first_at"]) == (
        "2026-02-02T02:45:00.000000Z",
        "2026-02-02T02:40:00.000000Z",
    )
    assert stream.engine.due(T0 + 500) == []


def test_absence_follows_the_last_event_of_each_group() -> None:
    """A group that goes on is not held up by one that went quiet before it, nor the other way round."""
    stream = Stream(rule('query = "action:a.b"\nkind = "absence"\nwindow = "5m"\ngroup = ["actor"]'))
    stream.take(0, event(actor="a"))
    stream.take(1, event(actor="b"))
    stream.take(200, event(actor="a"))
    assert [alert.event["metadata"]["group"]["actor"] for alert in stream.engine.due(T0 + 310)] == ["b"]
    assert [alert.event["metadata"]["group"]["actor"] for alert in stream.engine.due(T0 + 600)] == ["a"]


def test_first_seen_learns_before_it_speaks() -> None:
    """What came while it learned is known; what is new afterwards fires once."""
    stream = Stream(rule('query = "action:a.b"\nkind = "first_seen"\ngroup = ["actor", "ip"]\nlearn = "1h"'))
    assert stream.take(0, event(context={"ip": "1.1.1.1"})) == []
    assert stream.take(4000, event(context={"ip": "1.1.1.1"})) == []
    assert len(stream.take(4001, event(context={"ip": "2.2.2.2"}))) == 1
    assert stream.take(4002, event(context={"ip": "2.2.2.2"})) == []


def test_sequence_needs_both_in_order_in_time_and_in_one_group() -> None:
    """B alone, B of another group, B too late: silence."""
    stream = Stream(rule('query = "action:a.b"\nthen = "action:c.d"\nkind = "sequence"\nwindow = "10s"\ngroup = ["actor"]'))
    assert stream.take(0, event("c.d")) == []
    assert stream.take(1, event("a.b")) == []
    assert stream.take(2, event("c.d", "other")) == []
    (alert,) = stream.take(11, event("c.d"))
    assert alert.event["metadata"]["count"] == 2
    stream.take(20, event("a.b"))
    assert stream.take(31, event("c.d")) == []


def test_suppression_is_of_the_group() -> None:
    """For so long after an alert, and counted."""
    stream = Stream(rule('query = "action:a.b"\ngroup = ["actor"]\nsuppress = "1h"'))
    fired = [len(stream.take(at, event(actor=who))) for at, who in ((0, "a"), (1, "a"), (2, "b"), (3600, "a"))]
    assert fired == [1, 0, 1, 1]
    assert stream.engine.counts()["r"]["suppressed"] == 1


def test_state_goes_through_json_at_every_event() -> None:
    """An engine that is made anew before each event raises exactly what one that lives on raises."""
    kinds = [
        rule('query = "action:a.b"\nkind = "threshold"\ncount = 3\nwindow = "1m"\ngroup = ["actor"]', "k1"),
        rule('query = "action:a.b"\nkind = "distinct"\nfield = "ip"\ncount = 3\nwindow = "10s"', "k2"),
        rule('query = "action:a.b"\nkind = "absence"\nwindow = "7s"\ngroup = ["actor"]', "k3"),
        rule('query = "action:a.b"\nkind = "first_seen"\ngroup = ["ip"]', "k4"),
        rule('query = "action:a.b"\nthen = "action:c.d"\nkind = "sequence"\nwindow = "10s"\nsuppress = "8s"', "k5"),
    ]
    lives, dies = Stream(*kinds), Stream(*kinds)
    raised: list[list[str]] = [[], []]
    for second in range(0, 120, 2):
        one = event(("a.b", "c.d")[second % 6 == 4], f"u{second % 14}", context={"ip": f"10.0.0.{second % 22}"})
        for alerts, stream in zip(raised, (lives, dies), strict=True):
            alerts += [alert.event["id"] for alert in stream.engine.due(T0 + second) + stream.take(second, one)]
        dies.again()
    assert raised[0] == raised[1]
    assert {id_.split(":")[1] for id_ in raised[0]} == {"k1", "k2", "k3", "k4", "k5"}


def test_memory_is_bounded_and_says_what_it_forgot() -> None:
    """The group that was quiet longest goes first."""
    stream = Stream(rule('query = "action:a.b"\nkind = "threshold"\ncount = 2\nwindow = "1h"\ngroup = ["actor"]'), groups=3)
    for number in range(10):
        stream.take(number, event(actor=f"u{number}"))
    assert stream.engine.counts()["r"] == {"groups": 3, "forgotten": 7, "suppressed": 0}
    assert len(stream.take(11, event(actor="u9"))) == 1
    assert stream.take(12, event(actor="u0")) == []


def test_a_rule_that_judges_otherwise_begins_anew() -> None:
    """New words keep the state, another window does not."""
    body = 'query = "action:a.b"\nkind = "threshold"\ncount = 2\nwindow = "{}"\n{}'
    stream = Stream(rule(body.format("1h", "")))
    stream.take(0, event())
    state = stream.engine.state()
    for changed, fires in (("1h", 1), ("2h", 0)):
        engine = Engine([rule(body.format(changed, 'description = "new words"'))])
        engine.restore(state)
        assert len(engine.take(event(), T0 + 1, 2)) == fires


def test_alerts_raise_no_alerts_unless_a_rule_says_so() -> None:
    """And then never over the rule's own, nor over an alert that was about an alert."""
    plain, own = rule('query = "actor.id:*"', "plain"), rule('query = "action:tallystick.alert"\nown = true', "own")
    stream = Stream(plain, own)
    (alert,) = stream.take(0, event())
    (second,) = stream.take(1, {**alert.event, "tenant": "acme"})
    assert (alert.rule.name, second.rule.name) == ("plain", "own")
    assert stream.take(2, {**second.event, "tenant": "acme"}) == []


def test_only_rules_that_may_match_an_action_are_asked() -> None:
    """Whatever the form of the query; and an event of an action that no rule is about need not be decoded."""
    bodies = ["action:a.b", "action:(a.b OR c.*)", "NOT action:a.b", "outcome:failure", "action:x.y AND outcome:failure"]
    engine = Engine([rule(f'query = "{body}"', f"r{number}") for number, body in enumerate(bodies)])
    found = {action: engine._candidates.of(action) for action in ("a.b", "c.d", "x.y", "q")}
    assert found == {"a.b": (0, 1, 3), "c.d": (1, 2, 3), "x.y": (2, 3, 4), "q": (2, 3)}
    assert not Engine([rule('query = "action:a.b"')]).is_wanted("c.d")
