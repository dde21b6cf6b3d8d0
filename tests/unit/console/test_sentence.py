"""One plain sentence per event."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.console.sentence import build_sentence, quote_value, split_action
from tallystick.query.evaluate import compile_query

ANA = {"type": "user", "id": "u_17", "name": "Ana", "roles": ["support"]}
BOB = {"type": "user", "id": "u_9", "name": "Bob"}
ACME = {"type": "organization", "id": "acme", "name": "Acme"}


def say(**event: Any) -> str:
    return "".join(part.text for part in build_sentence({"actor": ANA, "outcome": "success", **event}))


@pytest.mark.parametrize(
    ("event", "sentence"),
    [
        (
            {"action": "role.grant", "targets": [BOB, ACME], "changes": [{"path": "/role", "op": "replace", "after": "admin"}]},
            "Ana (support) granted role admin to Bob in Acme",
        ),
        ({"action": "invoice.view", "targets": [{"type": "invoice", "id": "i_5"}]}, "Ana (support) viewed invoice i_5"),
        (
            {"action": "customer.export", "actor": {"type": "service", "id": "ci-7"}, "metadata": {"rows": 4210}},
            "ci-7 exported 4,210 customers",
        ),
        ({"action": "role.grant", "targets": [ACME], "outcome": "denied"}, "Ana (support) was denied role.grant on Acme"),
        ({"action": "user.login", "outcome": "failure"}, "Ana (support) failed to log in"),
        ({"action": "user.logout"}, "Ana (support) logged out"),
        ({"action": "ConsoleLogin"}, "Ana (support) logged in"),
        (
            {"action": "iam.amazonaws.com:CreateUser", "targets": [{"type": "iam_user", "id": "zed"}]},
            "Ana (support) created user zed",
        ),
        ({"action": "secretsmanager.GetSecretValue"}, "Ana (support) read secret value"),
        ({"action": "odd.thing", "targets": [BOB]}, "Ana (support): odd.thing on Bob"),
        ({"action": "user.update", "targets": [BOB, ACME, ACME, ACME]}, "Ana (support) updated user Bob in Acme and 2 more"),
        (
            {"action": "impersonation.start", "on_behalf_of": [{**BOB, "mode": "impersonation"}]},
            "Ana (support) as Bob started impersonation",
        ),
        ({"action": "tallystick.search"}, "Ana (support) searched"),
        ({"action": "x", "actor": {}}, "someone: x"),
    ],
)
def test_sentences(event: dict[str, Any], sentence: str) -> None:
    """Actor, verb in the past, what, to whom, where; unknown verbs and denials quote the action."""
    assert say(**event) == sentence


def test_a_masked_value_is_not_told() -> None:
    """A change that was masked gives no detail."""
    text = say(action="password.set", changes=[{"path": "/password", "op": "replace", "after": "hunter2", "masked": True}])
    assert "hunter2" not in text


def test_words_are_links_to_their_events() -> None:
    """Actor, action and targets carry the query that finds them, and the query finds the event."""
    event = {
        "action": "role.grant",
        "actor": {"type": "user", "id": 'a"b\\c:/d'},
        "targets": [{"type": "user", "id": "NOT"}],
        "outcome": "success",
    }
    queries = [part.query for part in build_sentence(event) if part.query]
    assert len(queries) == 3
    assert all(compile_query(query)(event) for query in queries)


@settings(max_examples=100, deadline=None)
@given(st.text(min_size=1, max_size=40).filter(lambda text: "\x00" not in text))
def test_quoted_values_find_exactly_themselves(value: str) -> None:
    """Whatever an id is made of, its quoted form is one term that matches it and not another."""
    matches = compile_query(f"actor.id:{quote_value(value)}")
    assert matches({"actor": {"type": "user", "id": value}})
    assert not matches({"actor": {"type": "user", "id": value + "x"}})


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60))
def test_any_action_has_a_sentence(action: str) -> None:
    """No text makes it fail, and the verb is one that it knows or none."""
    verb, _ = split_action(action)
    assert isinstance(verb, str)
    assert say(action=action).startswith("Ana")


def test_long_and_hidden_text_is_tamed() -> None:
    """A megabyte of name is cut; a character that reorders text is shown as its escape."""
    text = say(
        action="user.update",
        targets=[{"type": "user", "id": "x", "name": "\u202egnp.exe"}],
        actor={"type": "user", "id": "n" * 1_000_000},
    )
    assert len(text) < 300
    assert "\u202e" not in text
    assert "\\u202egnp.exe" in text
