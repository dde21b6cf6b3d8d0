"""A real rsyslogd: one process with its own directory, fed through a socket, forwarding as its configuration says."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from support.server import wait_for

_FRAME = """
global(workDirectory="{directory}" maxMessageSize="64k")
module(load="imuxsock" SysSock.Use="off")
input(type="imuxsock" Socket="{directory}/log" RateLimit.Interval="0" ParseTrusted="off" UsePIDFromSystem="off")
main_queue(queue.type="LinkedList" queue.size="100000")
{action}
"""


class Rsyslog:
    """``socket`` takes what a program on this machine would send to ``/dev/log``."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.connect(str(directory / "log"))

    def log(self, text: str) -> None:
        """One message of facility authpriv, as `syslog(3)` sends it; waits while rsyslog is behind."""
        self._sock.send(f"<86>Jan 19 14:23:55 audit[7]: {text}".encode())

    def said(self) -> str:
        """What rsyslog says of itself."""
        return (self.directory / "said").read_text(errors="replace")


@contextlib.contextmanager
def run_rsyslog(directory: Path, action: str) -> Iterator[Rsyslog]:
    """rsyslogd with this action until the end of the block."""
    directory.mkdir()
    configuration = directory / "rsyslog.conf"
    configuration.write_text(_FRAME.format(directory=directory, action=action))
    program = shutil.which("rsyslogd") or "/usr/sbin/rsyslogd"
    with (directory / "said").open("wb") as said:
        process = subprocess.Popen(
            [program, "-n", "-f", str(configuration), "-i", str(directory / "pid")],
            stdout=said,
            stderr=said,
            stdin=subprocess.DEVNULL,
        )
    try:
        wait_for(lambda: (directory / "log").exists() or process.poll() is not None, "rsyslog's socket")
        assert process.poll() is None, (directory / "said").read_text()
        yield Rsyslog(directory)
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
