"""The dispatcher's control socket: ``run/dispatcher.sock``, one JSON object a line, one answer a line.

    {"op":"pause"|"resume"|"probe", "destination":…}
    {"op":"replay", "destination":…, "tenant":…, "first_index":…, "last_index":…}    or    {"op":"replay", "letters":[ids]}
    {"op":"reconcile", "destination":…, "tenant"?:…, "after"?:…, "repair"?:true}
    {"op":"discard", "letters":[ids], "reason":…, "by":…}
    {"op":"explain", "handle":…, "index":…, "destination"?:…}
    {"op":"status"}

Answer: ``{"ok": <result>}`` or ``{"error": {"code", "message", "hint"}}``. The socket is for the processes of this installation
(0600 in a 0700 directory); who may ask is the api's business.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from tallystick.durable import unlink
from tallystick.errors import DestinationUnavailableError, NotFoundError, TallystickError, TerminalError, TransientError
from tallystick.telemetry import log

Handler = Callable[[str, dict[str, Any]], Awaitable[Any]]
SOCKET = "dispatcher.sock"
LINE_MAX = 1 << 20


def call(data_dir: Path, op: str, *, timeout_s: float = 30.0, **args: Any) -> Any:
    """Ask the dispatcher; blocking. Raises NotFoundError, TerminalError or TransientError, as it answered or because it does not run."""
    request = msgspec.json.encode({"op": op, **{name: value for name, value in args.items() if value is not None}})
    try:
        with _connect(data_dir / "run", timeout_s) as sock, sock.makefile("rb") as answers:
            sock.sendall(request + b"\n")
            line = answers.readline(64 * LINE_MAX)
    except OSError as error:
        raise DestinationUnavailableError("the dispatcher does not answer", hint="It is restarting; try again") from error
    if not line.endswith(b"\n"):
        raise DestinationUnavailableError("the dispatcher broke off its answer", hint="Try again")
    answer = msgspec.json.decode(line)
    if "error" in answer:
        raise _error_of(answer["error"])
    return answer["ok"]


def _connect(run_dir: Path, timeout_s: float) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Through an open descriptor: a data directory may lie deeper than the 108 bytes of sun_path.
        directory = os.open(run_dir, os.O_RDONLY | os.O_DIRECTORY)
        try:
            sock.settimeout(timeout_s)
            sock.connect(f"/proc/self/fd/{directory}/{SOCKET}")
        finally:
            os.close(directory)
    except BaseException:
        sock.close()
        raise
    return sock


def _error_of(error: dict[str, str]) -> TallystickError:
    kinds: dict[str, type[TallystickError]] = {NotFoundError.code: NotFoundError, TransientError.code: TransientError}
    found = kinds.get(error["code"], TerminalError)(error["message"], hint=error.get("hint") or None)
    found.code = error["code"]
    return found


@contextlib.asynccontextmanager
async def serve(data_dir: Path, handle: Handler) -> Any:
    """Listen while the context lasts; ``handle(op, args)`` gives each result."""
    server = await asyncio.start_unix_server(lambda r, w: _answer(r, w, handle), sock=_bind(data_dir / "run"), limit=LINE_MAX)
    async with server:
        yield


def _bind(run_dir: Path) -> socket.socket:
    run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = run_dir / SOCKET
    if path.is_socket():
        unlink(path)
    directory = os.open(run_dir, os.O_RDONLY | os.O_DIRECTORY)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        mask = os.umask(0o177)
        try:
            sock.bind(f"/proc/self/fd/{directory}/{SOCKET}")
        finally:
            os.umask(mask)
    finally:
        os.close(directory)
    sock.listen(64)
    return sock


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handle: Handler) -> None:
    with contextlib.suppress(ConnectionError, ValueError):  # ValueError: a line over the limit; the connection ends
        while line := await reader.readline():
            writer.write(msgspec.json.encode(await _respond(line, handle)) + b"\n")
            await writer.drain()
    writer.close()


async def _respond(line: bytes, handle: Handler) -> dict[str, Any]:
    try:
        request = msgspec.json.decode(line, type=dict[str, Any])
        op = str(request.pop("op"))
        return {"ok": await handle(op, request)}
    except TallystickError as error:
        return {"error": {"code": error.code, "message": error.message, "hint": error.hint or ""}}
    except (msgspec.DecodeError, KeyError, TypeError, ValueError) as error:
        return {"error": {"code": TerminalError.code, "message": f"bad request: {error}", "hint": ""}}
    except Exception as error:  # noqa: BLE001 - the last resort: the asker gets an answer, the log the place
        log.error("a control request failed", error=repr(error), exc_info=True)
        return {"error": {"code": "internal", "message": "the dispatcher failed at this request; its log says why", "hint": ""}}
