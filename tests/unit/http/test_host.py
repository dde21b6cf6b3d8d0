from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.config import ServerSettings
from tallystick.http.host import HostCheck, normal_path
from tallystick.http.problem import Problem

CHECK = HostCheck(ServerSettings(name="audit.example.com", listen="0.0.0.0:8420", hosts=("logs.internal:8443",)))


def scope_of(host: bytes | None, path: bytes = b"/") -> dict[str, Any]:
    headers = [(b"host", host)] if host is not None else []
    return {"type": "http", "headers": headers, "raw_path": path, "path": "?", "server": ("10.1.2.3", 8420)}


@pytest.mark.parametrize(
    "host",
    [
        b"localhost",
        b"LOCALHOST:8420",
        b"127.0.0.1:1",
        b"[::1]:8420",
        b"[::1]",
        b"audit.example.com",
        b"audit.example.com.:80",
        b"logs.internal",
        b"10.1.2.3:8420",
    ],
)
def test_listed_hosts_are_served(host: bytes) -> None:
    """Loopback names, the server's name, listed hosts and the address of the connection are served, with any port."""
    CHECK.check(scope_of(host))


@pytest.mark.parametrize(
    "host",
    [
        None,
        b"",
        b"evil.example",
        b"audit.example.com.evil.example",
        b"localhost@evil.example",
        b"localhost:8420:1",
        b"localhost:x",
        b"[::1",
        b"[::1]x",
        b"10.1.2.4",
        b" ",
    ],
)
def test_other_hosts_are_421(host: bytes | None) -> None:
    """Unlisted, malformed and missing hosts are misdirected requests."""
    with pytest.raises(Problem) as caught:
        CHECK.check(scope_of(host))
    assert caught.value.status == 421


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"/", "/"),
        (b"/v1/events", "/v1/events"),
        (b"/%761/events", "/v1/events"),
        (b"/log/x001/067.p/4", "/log/x001/067.p/4"),
        (b"/v1/events/a:b%20c", "/v1/events/a:b c"),
        (b"/%C3%A4/", "/\u00e4/"),
    ],
)
def test_plain_paths_have_one_form(raw: bytes, path: str) -> None:
    """A path is decoded once, and path and raw path in the scope agree from then on."""
    scope = scope_of(b"localhost", raw)
    CHECK.check(scope)
    assert scope["path"] == path
    assert unquote(scope["raw_path"].decode()) == path


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"*",
        b"x",
        b"//v1/events",
        b"/v1//events",
        b"/v1/./events",
        b"/v1/../events",
        b"/v1/%2e%2e/events",
        b"/v1/..",
        b"/v1%2fevents",
        b"/v1%5cevents",
        b"/v1\\events",
        b"/a%00",
        b"/a%0a",
        b"/a%252e",
        b"/a%",
        b"/%ff",
        b"/%C2%85",
    ],
)
def test_paths_that_two_readers_could_take_differently_are_refused(raw: bytes) -> None:
    """Encoded separators, dot and empty segments, control characters, double encoding and bad UTF-8 are 400."""
    with pytest.raises(Problem) as caught:
        normal_path(raw)
    assert caught.value.status == 400


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=40))
def test_normalising_twice_changes_nothing(raw: bytes) -> None:
    """Whatever is accepted is accepted again, quoted anew, as the same path."""
    scope = scope_of(b"localhost", b"/" + raw)
    try:
        CHECK.check(scope)
    except Problem:
        return
    assert normal_path(scope["raw_path"]) == scope["path"]
