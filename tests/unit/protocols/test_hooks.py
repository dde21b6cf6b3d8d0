"""Signed hooks: the vendors' own examples, and everything that is not quite them."""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.errors import ConfigError
from tallystick.protocols.hooks import (
    GITHUB,
    SLACK,
    STANDARD,
    Headers,
    HmacForm,
    HmacVerifier,
    SignatureError,
    TokenVerifier,
    Verifier,
    read_secret,
)

# GitHub, "Validating webhook deliveries", testing the webhook payload validation.
GITHUB_SECRET = b"It's a Secret to Everybody"
GITHUB_BODY = b"Hello, World!"
GITHUB_HEADERS = {b"x-hub-signature-256": b"sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"}
# Slack, "Verifying requests from Slack", the worked example.
SLACK_SECRET = b"8f742231b10e8888abcd99yyyzzz85a5"
SLACK_BODY = (
    b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar"
    b"&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com"
    b"%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
)
SLACK_HEADERS = {
    b"x-slack-request-timestamp": b"1531420618",
    b"x-slack-signature": b"v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
}
# Standard Webhooks, the example of the specification.
STANDARD_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
STANDARD_BODY = b'{"test": 2432232314}'
STANDARD_HEADERS = {
    b"webhook-id": b"msg_p5jXN8AQM9LWM0D4loKWxJek",
    b"webhook-timestamp": b"1614265330",
    b"webhook-signature": b"v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}
EXAMPLES: dict[str, tuple[HmacVerifier, Headers, bytes, float]] = {
    "github": (HmacVerifier(GITHUB, [GITHUB_SECRET]), GITHUB_HEADERS, GITHUB_BODY, 0.0),
    "slack": (HmacVerifier(SLACK, [SLACK_SECRET]), SLACK_HEADERS, SLACK_BODY, 1531420618.0),
    "standard": (
        HmacVerifier(STANDARD, [read_secret(STANDARD_SECRET, is_standard=True)]), STANDARD_HEADERS, STANDARD_BODY, 1614265330.0,
    ),
}  # fmt: skip


def code_of(verifier: Verifier, headers: Headers, body: bytes, now: float) -> str:
    """Why it is refused; empty when it is not."""
    try:
        verifier.look(headers, now)
        verifier.check(headers, body)
    except SignatureError as error:
        return error.code
    return ""


@pytest.mark.parametrize("scheme", EXAMPLES)
def test_the_vendors_own_example_is_taken(scheme: str) -> None:
    """Secret, body and signature as published; the time is that of the example."""
    assert code_of(*EXAMPLES[scheme]) == ""


@pytest.mark.parametrize("scheme", EXAMPLES)
def test_another_body_secret_or_signature_is_not(scheme: str) -> None:
    """One byte more, another secret, a signature cut, of another kind, or in other letters."""
    verifier, headers, body, now = EXAMPLES[scheme]
    name = verifier.form.header.encode()
    assert code_of(verifier, headers, body + b" ", now) == "signature_invalid"
    assert code_of(replace(verifier, secrets=[b"x" * 32]), headers, body, now) == "signature_invalid"
    for wrong in (headers[name][:-1], headers[name][3:], b"x", headers[name] + b"\xff", headers[name].swapcase()):
        assert code_of(verifier, {**headers, name: wrong}, body, now) == "signature_invalid", wrong
    assert code_of(verifier, {**headers, name: b""}, body, now) == "signature_missing"
    assert code_of(verifier, {}, body, now) == "signature_missing"


@pytest.mark.parametrize("scheme", ["slack", "standard"])
def test_a_signed_time_must_be_near(scheme: str) -> None:
    """Either way; a time that is none, or that was changed, is refused too."""
    verifier, headers, body, now = EXAMPLES[scheme]
    name = (verifier.form.timestamp_header or "").encode()
    assert code_of(verifier, headers, body, now + 300) == code_of(verifier, headers, body, now - 300) == ""
    assert code_of(verifier, headers, body, now + 301) == code_of(verifier, headers, body, now - 301) == "signature_stale"
    assert code_of(verifier, {**headers, name: b"%d" % (now + 1)}, body, now) == "signature_invalid"
    for claim in (b"soon", b"-1", b"1e9", b"9" * 400, b"\xb2"):
        assert code_of(verifier, {**headers, name: claim}, body, now) == "signature_stale"


def test_two_secrets_while_one_is_exchanged() -> None:
    """Either side may be first: the receiver knows both, or the sender signs with both."""
    verifier, headers, body, now = EXAMPLES["standard"]
    assert code_of(replace(verifier, secrets=[b"n" * 32, *verifier.secrets]), headers, body, now) == ""
    both = b"v1,AAAA v1a,xyz " + headers[b"webhook-signature"]
    assert code_of(verifier, {**headers, b"webhook-signature": both}, body, now) == ""


def test_what_names_a_delivery_is_what_was_signed() -> None:
    """The signed id, or the body; a header that anybody could change names nothing, and is kept as a fact."""
    verifier, headers, body, _ = EXAMPLES["standard"]
    assert verifier.check(headers, body).name == "msg_p5jXN8AQM9LWM0D4loKWxJek"
    github = EXAMPLES["github"][0]
    deliveries = [
        github.check({**GITHUB_HEADERS, b"x-github-delivery": one, b"x-github-event": b"ping\x1b"}, GITHUB_BODY)
        for one in (b"1", b"2")
    ]
    assert deliveries[0].name == deliveries[1].name == hashlib.sha256(GITHUB_BODY).hexdigest()[:32]
    assert deliveries[0].facts == {"x-github-event": "ping\ufffd", "x-github-delivery": "1"}
    odd = b"msg \xff/" * 30
    mac = hmac.new(read_secret(STANDARD_SECRET, is_standard=True), b"%b.1614265330.%b" % (odd, body), "sha256").digest()
    signed = {**headers, b"webhook-id": odd, b"webhook-signature": b"v1," + base64.b64encode(mac)}
    assert verifier.check(signed, body).name == hashlib.sha256(odd).hexdigest()[:32]


def test_an_id_cannot_stand_in_for_the_time() -> None:
    """Places are filled once: what a header holds is never a place itself."""
    form = HmacForm("x-sig", signed="{id}|{timestamp}|{body}", id_header="x-id", timestamp_header="x-time")
    headers = {b"x-id": b"{timestamp}", b"x-time": b"1"}
    mac = hmac.new(b"k" * 16, b"{timestamp}|1|b", "sha256").hexdigest().encode()
    assert code_of(HmacVerifier(form, [b"k" * 16]), {**headers, b"x-sig": mac}, b"b", 1) == ""


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512"])
@pytest.mark.parametrize("encoding", ["hex", "base64"])
def test_a_form_of_ones_own(algorithm: str, encoding: str) -> None:
    """Any of the hashes, written either way, behind a prefix."""
    form = HmacForm("x-sig", "p=", algorithm, encoding)  # type: ignore[arg-type]
    digest = hmac.new(b"k" * 16, b"body", algorithm).digest()
    text = digest.hex().encode() if encoding == "hex" else base64.b64encode(digest)
    assert code_of(HmacVerifier(form, [b"k" * 16]), {b"x-sig": b"p=" + text}, b"body", 0) == ""
    assert code_of(HmacVerifier(form, [b"k" * 16]), {b"x-sig": text}, b"body", 0) == "signature_invalid"


def test_a_text_that_was_agreed() -> None:
    """Okta's: the header as it is, told before the body is read; the body is not signed, and its events say so."""
    verifier = TokenVerifier([b"my-shared-secret", b"the-one-before-it"])
    for secret in (b"my-shared-secret", b"the-one-before-it"):
        assert code_of(verifier, {b"authorization": secret}, b"any", 0) == ""
    assert code_of(verifier, {b"authorization": b"my-shared-secret "}, b"", 0) == "signature_invalid"
    assert code_of(verifier, {}, b"", 0) == "signature_missing"
    assert verifier.check({}, b"b").flags == ("unsigned",)


def test_secrets() -> None:
    """Standard Webhooks' are base64 behind their prefix; short ones are refused."""
    assert read_secret("a-secret-of-16-by") == b"a-secret-of-16-by"
    assert len(read_secret(STANDARD_SECRET, is_standard=True)) == 24
    assert read_secret(STANDARD_SECRET) == STANDARD_SECRET.encode()
    for text, is_standard in (("short", False), ("whsec_!!!", True), ("whsec_YWJj", True)):
        with pytest.raises(ConfigError):
            read_secret(text, is_standard=is_standard)


@given(st.sampled_from(sorted(EXAMPLES)), st.binary(max_size=80), st.binary(max_size=80))
def test_no_bytes_pass_by_chance(scheme: str, body: bytes, signature: bytes) -> None:
    """Whatever the header and the body hold, it is refused with a code and nothing else happens."""
    verifier, headers, right, now = EXAMPLES[scheme]
    name = verifier.form.header.encode()
    if body != right:
        assert code_of(verifier, headers, body, now) == "signature_invalid"
    if signature != headers[name]:
        assert code_of(verifier, {**headers, name: signature}, right, now) in ("signature_invalid", "signature_missing")
