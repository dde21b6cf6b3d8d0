"""Small facts of Unix processes: dying with the parent, and sockets whose path may be long."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
from pathlib import Path

from tallystick.durable import unlink
from tallystick.errors import ConfigError

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent_pid: int) -> None:
    """Ask the kernel for SIGKILL when the parent ends, and end now when it already has.

    SIGKILL is safe: every promise of ours holds under kill -9, and a follower that outlived its supervisor would hold
    its lock against the next start.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent_pid:
        sys.exit(1)


def bind_tcp(listen: str) -> socket.socket:
    """A socket bound to ``host:port`` (IPv6 in brackets), not listening yet. Raises ConfigError when that cannot be."""
    host, _, port = listen.rpartition(":")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"[server] listen = {listen!r}: {error.strerror}", hint='Write "127.0.0.1:8420"') from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError as error:
        sock.close()
        raise ConfigError(
            f"cannot listen on {listen}: {error.strerror}", hint="Another program may listen there; choose with --listen HOST:PORT"
        ) from error
    return sock


def bind_unix(path: Path) -> socket.socket:
    """A listening Unix socket at ``path``, 0600, replacing a stale one.

    The address passes through ``/proc/self/fd`` because sun_path holds only 108 bytes and data directories may lie deep.
    """
    if path.is_socket():
        unlink(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o177)
        try:
            sock.bind(f"/proc/self/fd/{directory}/{path.name}")
        finally:
            os.umask(mask)
        sock.listen(512)
    finally:
        os.close(directory)
    return sock
