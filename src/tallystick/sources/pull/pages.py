"""One reply of a vendor: its records, where the next page is, and how long to wait. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urljoin, urlsplit

import msgspec

from tallystick.errors import TransientError
from tallystick.http.outbound import Reply
from tallystick.sources.pull.definition import Page

_LINK = re.compile(r"<([^>]*)>([^,<]*)")
_REL = re.compile(r';\s*rel\s*=\s*"?([^";]+)"?', re.IGNORECASE)
_RESETS = ("x-ratelimit-reset", "x-rate-limit-reset", "ratelimit-reset")
_LEFT = ("x-ratelimit-remaining", "x-rate-limit-remaining", "ratelimit-remaining")
_EPOCH = 1_000_000_000
WAIT_MAX_S = 3600.0


class PageError(TransientError):
    """A reply that is not what the definition says. Nothing of it was taken."""

    code = "page_invalid"


def records_in(body: bytes, path: str) -> list[bytes]:
    """The records, each as it was sent. Raises PageError."""
    try:
        found = msgspec.Raw(body)
        for name in path.split(".") if path else ():
            members = msgspec.json.decode(found, type=dict[str, msgspec.Raw])
            if name not in members:
                return []  # vendors leave out a list that is empty
            found = members[name]
        return [bytes(record) for record in msgspec.json.decode(found, type=list[msgspec.Raw])]
    except (msgspec.DecodeError, ValueError) as error:
        raise PageError(f"the reply holds no list at {path or 'its top'!r}: {error}") from error


def value_at(value: Any, path: str) -> Any:
    """The member at a path of names; None when there is none."""
    for name in path.split("."):
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def key_of(record: Any, paths: Sequence[str]) -> str:
    """What names the record at its vendor; empty when a part is missing."""
    parts = [value_at(record, path) for path in paths]
    return "" if any(part is None for part in parts) else ":".join(map(str, parts))


def next_place(page: Page, reply: Reply, records: Sequence[bytes], url: str) -> str | None:
    """The next page's URL (link, header) or cursor (body, last); None behind the last page. Raises PageError."""
    match page.by:
        case "link":
            return _checked(link_next(reply.headers.get("link", ""), url), url)
        case "header":
            target = reply.headers.get(page.next.lower(), "")
            return _checked(urljoin(url, target) if target else None, url)
        case "body":
            whole = _decoded(reply.body)
            found = value_at(whole, page.next)
            has_more = value_at(whole, page.more) if page.more else True
            return str(found) if found not in (None, "") and has_more else None
        case "last":
            found = value_at(_decoded(records[-1]), page.next) if records else None
            return str(found) if found is not None else None
        case _:
            return None


def lasting_place(page: Page, reply: Reply) -> str | None:
    """The cursor that a last page gives for the next poll (it has one, though no more pages)."""
    found = value_at(_decoded(reply.body), page.next) if page.by == "body" else None
    return str(found) if found not in (None, "") else None


def link_next(header: str, url: str) -> str | None:
    """The target of rel=next (RFC 8288), as an absolute URL."""
    for target, parameters in _LINK.findall(header):
        relation = _REL.search(parameters)
        if relation and "next" in relation[1].lower().split():
            return urljoin(url, str(target))
    return None


def same_origin(url: str, other: str) -> bool:
    """Whether a credential for one may be sent to the other."""
    one, two = urlsplit(url), urlsplit(other)
    return (one.scheme, one.hostname, one.port) == (two.scheme, two.hostname, two.port)


def wait_s(reply: Reply, now: float) -> float | None:
    """How long the vendor asks to wait, in seconds: Retry-After, or the reset of a used-up rate limit; None when it does not ask."""
    asked = reply.retry_after_s()
    if asked is None and (reply.status == 429 or _first(reply.headers, _LEFT) == "0"):
        asked = _until_reset(_first(reply.headers, _RESETS), now)
    return None if asked is None else min(max(asked, 0.0), WAIT_MAX_S)


def _until_reset(text: str | None, now: float) -> float | None:
    try:
        reset = float(text or "")
    except ValueError:
        return None
    return reset - now if reset > _EPOCH else reset


def _first(headers: Mapping[str, str], names: Sequence[str]) -> str | None:
    return next((headers[name].strip() for name in names if name in headers), None)


def _checked(found: str | None, url: str) -> str | None:
    if found is not None and not same_origin(found, url):
        raise PageError(f"the next page is on another server ({urlsplit(found).netloc}); the credential is not sent there")
    return found


def _decoded(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, ValueError) as error:
        raise PageError(f"the reply is not JSON: {error}") from error
