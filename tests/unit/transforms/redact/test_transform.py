"""Secrets are taken out before the journal; everything else keeps its bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET, Raw

from tallystick.config.settings import Config
from tallystick.event import Actor, Change, Event, Ingest
from tallystick.transforms import build_transform
from tallystick.transforms.redact import Redact


def redactor(**table: Any) -> Redact:
    made = build_transform("secrets", {"type": "redact", **table} if table else None, Config(), lambda text: lambda line: True)
    assert isinstance(made, Redact)
    return made


REDACTOR = redactor()


def event(metadata: str | None = None, **more: Any) -> Event:
    made = Event(action="a", actor=Actor(type="user", id="u"), **more)
    if metadata is not None:
        made.metadata = Raw(metadata.encode())
    return made


def redacted(metadata: str, **table: Any) -> tuple[str, list[tuple[str, str, str]]]:
    one = event(metadata)
    redactor(**table).apply_batch([one])
    done = [] if one.ingest is UNSET else [(r.path, r.rule, r.action) for r in one.ingest.redactions or ()]
    return bytes(one.metadata).decode(), done  # type: ignore[arg-type]


SECRET_KEYS = ["password", "PASSWORD", "db_password", "newPassword", "passwd", "client_secret", "clientSecret", "apiKey", "x-api-key",
               "Authorization", "set-cookie", "accessToken", "private_key", "otp", "app.token", "secrets", "secretAccessKey"]  # fmt: skip
PLAIN_KEYS = ["compass", "spinning", "tokenIssuerType", "accessKeyId", "MFAUsed", "secretId", "token_id", "passport", "nextToken",
              "author", "pinned", "encryption_key_id"]  # fmt: skip


@pytest.mark.parametrize("key", SECRET_KEYS)
def test_secret_keys_lose_their_value(key: str) -> None:
    """A member named for a secret is masked, and the account says where."""
    assert redacted(f'{{"n":1.0,"{key}":"hunter2","z":[1E2]}}') == (
        f'{{"n":1.0,"{key}":"[REDACTED:secret]","z":[1E2]}}',
        [(f"/metadata/{key}", "secrets.key", "mask")],
    )


@pytest.mark.parametrize("key", PLAIN_KEYS)
def test_other_keys_keep_theirs(key: str) -> None:
    """Names that only sound like secrets are left alone."""
    text = f'{{"{key}":"hunter2"}}'
    assert redacted(text) == (text, [])


def test_a_batch_without_hits_is_not_opened() -> None:
    """Nothing to redact: the batch stays as it is, on one search."""
    assert redactor().apply_batch([event('{"share":{"role":"editor"},"count":0.10}'), event()]) is None


def test_only_the_way_to_the_secret_is_rewritten() -> None:
    """Number texts, escapes and order survive everywhere else, deep inside arrays too."""
    text = '{"a":{"n":1E2,"e":"\\u0041"},"l":[{"pin":1234,"n":-0},{"x":1.0}]}'
    kept, done = redacted(text)
    assert kept == '{"a":{"n":1E2,"e":"\\u0041"},"l":[{"pin":"[REDACTED:secret]","n":-0},{"x":1.0}]}'
    assert [path for path, _, _ in done] == ["/metadata/l/0/pin"]


def test_objects_under_secret_keys_keep_what_describes_them() -> None:
    """Of credentials the secret parts go, while ids, types and times stay."""
    text = '{"credentials":{"accessKeyId":"AKIA1","sessionToken":"abc","expiration":"2026","parts":["x",true,null]}}'
    kept, _ = redacted(text)
    expected = {
        "accessKeyId": "AKIA1",
        "sessionToken": "[REDACTED:secret]",
        "expiration": "2026",
        "parts": ["[REDACTED:secret]", True, None],
    }
    assert json.loads(kept)["credentials"] == expected


def test_counts_and_flags_are_no_secrets() -> None:
    """Numbers under token keys are counts; true, false, null and empty text hide nothing."""
    text = '{"total_tokens":1523,"password":true,"secret":null,"token":"","cookies":false}'
    assert redacted(text) == (text, [])


def test_an_escaped_key_does_not_slip_through() -> None:
    """A key written with escapes is the same key."""
    kept, done = redacted('{"p\\u0061ssword":"hunter2"}')
    assert "hunter2" not in kept
    assert done


FORMS = {
    "github_token": "ghp_" + "a1B2" * 9,
    "gitlab_token": "glpat-" + "a1B2" * 5,
    "slack_token": "xoxb-123456789012-abcdef",
    "stripe_key": "sk_live_" + "a1B2" * 6,
    "google_key": "AIza" + "a1B2c" * 7,
    "npm_token": "npm_" + "a1B2" * 9,
    "vault_token": "hvs." + "a1B2" * 8,
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc-_1",
    "private_key": "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
    "tallystick_key": "ts_abc_" + "a" * 43,
}


@pytest.mark.parametrize("rule", FORMS)
def test_secrets_of_a_fixed_form_are_cut_out_of_text(rule: str) -> None:
    """Wherever text is free, a secret of a known form goes and the text around it stays."""
    one = event(
        json.dumps({"note": f"see {FORMS[rule]} there"}), reason=f"used {FORMS[rule]}", raw=f"line with {FORMS[rule]} in it"
    )
    redactor().apply_batch([one])
    assert json.loads(bytes(one.metadata)) == {"note": f"see [REDACTED:{rule}] there"}  # type: ignore[arg-type]
    assert one.reason == f"used [REDACTED:{rule}]"
    assert one.raw == f"line with [REDACTED:{rule}] in it"


def test_a_password_in_a_url_leaves_the_url() -> None:
    """Only the password part of a URL goes."""
    kept, done = redacted('{"dsn":"postgres://app:hunter2@db.example.com/x"}')
    assert json.loads(kept) == {"dsn": "postgres://app:[REDACTED:url_password]@db.example.com/x"}
    assert done == [("/metadata/dsn", "secrets.url_password", "mask")]


def test_a_line_goes_when_one_of_its_members_was_masked() -> None:
    """In a text no key can be found, and what was decoded is not in it letter by letter."""
    (done,) = redactor().apply(event('{"user": "u", "password": "hunter2"}', raw="user=u password=68756E74657232"))
    assert b"hunter2" not in bytes(done.metadata)  # type: ignore[arg-type]
    assert done.raw is UNSET
    assert [(one.path, one.action) for one in done.ingest.redactions] == [("/metadata/password", "mask"), ("/raw", "drop")]  # type: ignore[union-attr]
    (kept,) = redactor().apply(event('{"user": "u"}', raw="user=u password policy"))
    assert kept.raw == "user=u password policy"


def test_raw_is_covered_like_metadata() -> None:
    """The original record as text holds no secret that metadata does not."""
    one = event(raw='{"user": "u", "n": 1.0, "password": "hunter2"}')
    redactor().apply_batch([one])
    assert json.loads(str(one.raw)) == {"user": "u", "n": 1.0, "password": "[REDACTED:secret]"}
    assert '"n":1.0' in str(one.raw)


def test_changes_are_judged_by_their_path() -> None:
    """Before and after of a secret are masked and marked; a secret inside another value too."""
    one = event(
        changes=[
            Change(path="/user/password", op="replace", before=Raw(b'"old"'), after=Raw(b'"new"')),
            Change(path="/role", op="replace", before=Raw(b'"a"'), after=Raw(b'{"apiKey":"k","n":1.0}')),
            Change(path="/count", op="add", after=Raw(b"1.0")),
        ]
    )
    redactor().apply_batch([one])
    changes: Any = one.changes
    assert [bytes(changes[0].before), bytes(changes[0].after)] == [b'"[REDACTED:secret]"'] * 2
    assert bytes(changes[1].after) == b'{"apiKey":"[REDACTED:secret]","n":1.0}'
    assert [change.masked for change in changes] == [True, True, UNSET]


def test_settings_add_allow_and_drop() -> None:
    """Own keys, own exceptions, and taking members away."""
    text = '{"badge":"7","token":"t","note":1}'
    assert redacted(text, keys=["Badge"], allow=["token"])[0] == '{"badge":"[REDACTED:secret]","token":"t","note":1}'
    kept, done = redacted(text, action="drop")
    assert kept == '{"badge":"7","note":1}'
    assert done == [("/metadata/token", "secrets.key", "drop")]


def test_mappings_say_what_is_no_secret_there() -> None:
    """An allowed key counts for events of that mapping only."""
    for mapping, expected in (("github_audit", "abc"), ("generic", "[REDACTED:secret]")):
        one = event('{"hashed_token":"abc"}', ingest=Ingest(mapping=mapping))
        redactor().apply_batch([one])
        assert json.loads(bytes(one.metadata))["hashed_token"] == expected  # type: ignore[arg-type]


@settings(deadline=None)  # a search is compiled when it is first needed
@given(st.lists(st.sampled_from([UNSET, "generic", "salesforce", "kubernetes_audit", "vault"]), min_size=1, max_size=5))
def test_a_name_is_a_secret_for_events_of_the_mapping_that_says_so(mappings: list[Any]) -> None:
    """In one batch each event is redacted as it is alone: by the names of its own mapping, whatever the others' call secret."""
    text = '{"session_id":"1","data":{"a":"2"},"wrap_info":"3","token":"4"}'
    secrets = {"salesforce": "session_id", "kubernetes_audit": "data", "vault": "wrap_info"}
    batch = [event(text, ingest=UNSET if mapping is UNSET else Ingest(mapping=mapping)) for mapping in mappings]
    REDACTOR.apply_batch(batch)
    for one, mapping in zip(batch, mappings, strict=True):
        left = {name: value for name, value in json.loads(bytes(one.metadata)).items() if "REDACTED" not in str(value)}  # type: ignore[arg-type]
        assert {"session_id", "data", "wrap_info", "token"} - left.keys() == {"token", secrets.get(mapping, "token")}


def test_redacting_twice_changes_nothing() -> None:
    """A replayed event is not redacted again."""
    one = event('{"password":"hunter2"}')
    transform = redactor()
    transform.apply(one)
    transform.apply(one)
    assert one.ingest is not UNSET
    assert len(one.ingest.redactions or ()) == 1


def test_hostile_text_costs_linear_time() -> None:
    """Long text that nearly matches is no trap."""
    one = event(json.dumps({"a": "a" * 200_000, "password": "x", "b": "://" * 50_000, "c": "eyJ" * 50_000}))
    redactor().apply_batch([one])
    assert b"REDACTED" in bytes(one.metadata)  # type: ignore[arg-type]


def test_the_actors_own_credential_stays_and_hides_no_other() -> None:
    """Its name is no secret's in the envelope; a member of that name in the metadata is, and so are tokens of known form in it."""
    plain = event('{"n":1}')
    plain.actor.credential = "ASIAEXAMPLE"
    assert REDACTOR.apply_batch([plain]) is None
    assert plain.actor.credential == "ASIAEXAMPLE"
    token = event()
    token.actor.credential = "ghp_" + "a1B2" * 9
    other = event('{"credential":"hunter2"}')
    other.actor.credential = "}ASIA{"
    assert REDACTOR.apply_batch([token, other]) is not None
    assert token.actor.credential == "[REDACTED:github_token]"
    assert (other.actor.credential, bytes(other.metadata)) == ("}ASIA{", b'{"credential":"[REDACTED:secret]"}')
