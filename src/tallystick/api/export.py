"""Streams an export that the engine encodes: each piece is made in a thread, and only when the one before has gone out.

An export of any length needs the memory of one piece. One whose reader has gone stops at the next piece.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

from tallystick.api.deps import ApiDeps
from tallystick.errors import OverloadedError
from tallystick.query.export import Format
from tallystick.query.request import SearchRequest

EXPORTS_MAX = 4


async def export_stream(deps: ApiDeps, request: SearchRequest, form: Format) -> ExportStream:
    """The encoded export. The first piece is made before this returns, so that a bad query is still a clean error.

    Raises QueryError, NotFoundError, OverloadedError when too many exports are open.
    """
    if deps.open_exports >= EXPORTS_MAX:
        raise OverloadedError("too many exports are running", retry_after_s=10)
    deps.open_exports += 1
    try:
        pieces = await deps.exports.run(lambda: deps.engine.export(request, form))
        first = await deps.exports.run(lambda: next(pieces, b""))
    except BaseException:
        deps.open_exports -= 1
        raise
    return ExportStream(deps, first, pieces)


class ExportStream:
    """An async iterator that gives its place back when it is exhausted, closed or never begun."""

    def __init__(self, deps: ApiDeps, first: bytes, pieces: Iterator[bytes]) -> None:
        self._deps = deps
        self._first: bytes | None = first
        self._pieces = pieces
        self._lock = threading.Lock()  # a reader that goes while a piece is being made: closing waits for that piece
        self._is_open = True

    def __aiter__(self) -> ExportStream:
        return self

    async def __anext__(self) -> bytes:
        if self._first is not None:
            piece, self._first = self._first, None
            return piece
        following = await self._deps.exports.run(self._next) if self._is_open else None
        if following is None:
            await self.aclose()
            raise StopAsyncIteration
        return following

    async def aclose(self) -> None:
        """Stop, and let the engine release what it holds."""
        if self._is_open:
            self._is_open = False
            self._deps.open_exports -= 1
            await self._deps.exports.run(self._close)

    def _next(self) -> bytes | None:
        with self._lock:
            return next(self._pieces, None)

    def _close(self) -> None:
        with self._lock:
            close = getattr(self._pieces, "close", None)
            if close is not None:
                close()
