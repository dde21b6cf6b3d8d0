"""The one path of a request, and whether it was meant for this server.

Both are decided once, before routing: everything after works on the path that comes out of here, so that routing and tenant
decisions can never see different ones. Whatever two readers could understand differently is refused instead of repaired.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from tallystick.config import ServerSettings
from tallystick.http.problem import Problem

_ALWAYS = ("localhost", "127.0.0.1", "[::1]")
_SEEN_MAX = 64
_SAFE_IN_PATH = "/-._~!$&'()*+,;=:@"


def normal_path(raw_path: bytes) -> str:
    """The path decoded once. Raises Problem 400 for what is no plain absolute path.

    Refused: no leading slash, empty or dot segments, an encoded slash, backslash or percent sign, control characters, bytes
    that are not UTF-8.
    """
    try:
        path = unquote_to_bytes(raw_path).decode("utf-8", "strict")
    except UnicodeDecodeError:
        raise _refused("is not UTF-8") from None
    if not path.startswith("/"):
        raise _refused("does not begin with a slash")
    if raw_path.count(b"/") != path.count("/") or "\\" in path or "%" in path:
        raise _refused("has an encoded slash, a backslash or a percent sign")
    if any(character < " " or "\x7f" <= character <= "\x9f" for character in path):
        raise _refused("has control characters")
    segments = path.split("/")[1:]
    if "" in segments[:-1] or "." in segments or ".." in segments:
        raise _refused("has empty or dot segments")
    return path


def host_name(value: bytes) -> str:
    """The name in a Host header's value, lower case, without port and final dot; empty when it is malformed."""
    text = value.decode("latin-1").lower()
    if text.startswith("["):
        name, bracket, port = text.partition("]")
        name, port = name + bracket, port.removeprefix(":") if port.startswith(":") or not port else "?"
    else:
        name, _, port = text.partition(":")
    if port and not (port.isascii() and port.isdigit()):
        return ""
    return name.removesuffix(".")


class HostCheck:
    """The first look at every request: 421 for a Host that is not listed, 400 for a path that is not plain.

    Listed are localhost, the address that the connection came in on, the listen address, the server's name and ``hosts``.
    """

    def __init__(self, server: ServerSettings) -> None:
        listen, name = server.listen.rpartition(":")[0], server.name
        self._hosts = {host_name(host.encode()) for host in (*_ALWAYS, listen, name, *server.hosts)} - {""}
        self._seen: set[bytes] = set()

    def is_listed(self, value: bytes) -> bool:
        """Whether the value of a Host header is listed; quick for values that came before."""
        if value in self._seen:
            return True
        if host_name(value) not in self._hosts:
            return False
        if len(self._seen) < _SEEN_MAX:
            self._seen.add(value)
        return True

    def check(self, scope: MutableMapping[str, Any]) -> None:
        """Put the one path into ``scope`` (``path``, and ``raw_path`` quoted anew). Raises Problem 400 or 421."""
        self._check_host(scope)
        path = normal_path(scope["raw_path"])
        scope["path"], scope["raw_path"] = path, quote(path, safe=_SAFE_IN_PATH).encode()

    def _check_host(self, scope: MutableMapping[str, Any]) -> None:
        value = next((value for name, value in scope["headers"] if name == b"host"), b"")
        name = host_name(value)
        if name in self._hosts or (name and scope.get("server") and name.strip("[]") == scope["server"][0]):
            return
        raise Problem(421, "host_unknown", "this server does not answer to that Host; list it in [server] hosts")


def _refused(what: str) -> Problem:
    return Problem(400, "path_malformed", f"the path {what}")
