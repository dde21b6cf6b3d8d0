"""A real rsyslogd that takes syslog over TCP and TLS and writes the text of each message to a file."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.certificates import Authority
from support.rsyslog import Rsyslog, run_rsyslog
from support.server import free_port, wait_for

_RULES = """
global(defaultNetstreamDriverCAFile="{ca}" defaultNetstreamDriverCertFile="{cert}" defaultNetstreamDriverKeyFile="{key}")
module(load="imtcp")
template(name="text" type="string" string="%msg%\\n")
input(type="imtcp" address="127.0.0.1" port="{tcp}")
input(type="imtcp" address="127.0.0.1" port="{tls}" streamdriver.name="gtls" streamdriver.mode="1" streamdriver.authmode="anon")
action(type="omfile" file="{out}" template="text")
"""


class RsyslogSink:
    """``ca`` signed its certificate, ``stranger`` did not."""

    def __init__(self, rsyslog: Rsyslog, out: Path, tcp_port: int, tls_port: int, ca: Path, stranger: Path) -> None:
        self.tcp_port = tcp_port
        self.tls_port = tls_port
        self.ca = ca
        self.stranger = stranger
        self._rsyslog = rsyslog
        self._out = out
        self._marks = 0

    def texts(self) -> list[str]:
        """Texts written so far. A message of our own goes behind all that was read: when it is written, so are they."""
        self._marks += 1
        mark = f"mark {self._marks}"
        self._rsyslog.log(mark)
        wait_for(lambda: self._out.exists() and mark in self._lines()[-1:], "rsyslog to write")
        return [line for line in self._lines() if line.startswith("{")]

    def wait(self, count: int) -> None:
        """Until so many texts are written."""
        wait_for(lambda: sum(line.startswith("{") for line in self._lines()) >= count, f"{count} texts")

    def _lines(self) -> list[str]:
        return [line.strip() for line in self._out.read_text(encoding="utf-8").splitlines()]


def _is_listening(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def run_rsyslog_sink() -> Iterator[RsyslogSink]:
    """In a directory of its own, on free ports, until the end of the block."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        authority, stranger = Authority(directory), Authority(directory, "stranger")
        pair = authority.issue("siem", "127.0.0.1")
        tcp, tls, out = free_port(), free_port(), directory / "out.log"
        rules = _RULES.format(ca=authority.path, cert=pair.cert, key=pair.key, tcp=tcp, tls=tls, out=out)
        with run_rsyslog(directory / "rsyslog", rules) as rsyslog:
            wait_for(lambda: _is_listening(tcp) and _is_listening(tls), "rsyslog's ports")
            yield RsyslogSink(rsyslog, out, tcp, tls, authority.path, stranger.path)
