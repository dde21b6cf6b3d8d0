"""Page cursors: where a page ended, and the snapshot that the next one must see.

    base64url( HMAC-SHA256(key, body)[:16] ‖ body ),  body = MessagePack of `PageCursor`

The key is derived from the root key for this purpose alone, so a cursor is valid across restarts and nowhere else. What a
cursor is bound to (tenants, query, time field, order) is in ``scope``, a digest: a cursor for other tenants does not
open with these.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

import msgspec

from tallystick.errors import QueryError
from tallystick.query.request import SearchRequest

_TAG_BYTES = 16


class PageCursor(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """Times are microseconds since 1970. ``after`` is the sort key of the last event shown; ``ends`` maps a handle to the
    first index that the snapshot does not hold."""

    v: int = 1
    scope: bytes
    start: int | None
    end: int | None
    after: tuple[int, int, str]
    ends: dict[str, int]


def scope_of(request: SearchRequest, handles: list[str]) -> bytes:
    """A digest of all that pages of one search have in common."""
    parts = [request.query, request.time, request.order, *handles]
    return hashlib.sha256(msgspec.json.encode(parts)).digest()[:16]


class SignedTexts:
    """Texts that only this installation makes, for a client to bring back as they are: base64url( HMAC-SHA256(key, body)[:16] ‖ body )."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def close(self, body: bytes) -> str:
        return base64.urlsafe_b64encode(self._tag(body) + body).rstrip(b"=").decode()

    def open(self, text: str) -> bytes | None:
        """The body of a text; None when it was not made here."""
        try:
            blob = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        tag, body = blob[:_TAG_BYTES], blob[_TAG_BYTES:]
        return body if hmac.compare_digest(tag, self._tag(body)) else None

    def _tag(self, body: bytes) -> bytes:
        return hmac.digest(self._key, body, hashlib.sha256)[:_TAG_BYTES]


class CursorBox:
    """Closes and opens cursors under one key."""

    def __init__(self, key: bytes) -> None:
        self._texts = SignedTexts(key)

    def close(self, cursor: PageCursor) -> str:
        return self._texts.close(msgspec.msgpack.encode(cursor))

    def open(self, text: str, scope: bytes) -> PageCursor:
        """The cursor in a text. Raises QueryError when it was not made here, or for another search."""
        body = self._texts.open(text)
        if body is None:
            raise _refused()
        try:
            cursor = msgspec.msgpack.decode(body, type=PageCursor)
        except msgspec.DecodeError:  # signed by another version of this program
            raise _refused() from None
        if cursor.scope != scope:
            raise QueryError(
                "the cursor belongs to another search",
                place="cursor",
                hint="Send it with the tenant, query, time and order of the page it came from",
            )
        return cursor


def _refused() -> QueryError:
    return QueryError("the cursor is not valid", place="cursor", hint="Start again without a cursor")
