"""One harness per kind of source that runs by itself: how to make it, how its senders send, and what they are told."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from support.certificates import Authority
from support.forward_client import ForwardClient, event_time, pack, packed_forward
from support.running import context_of
from tallystick.config import Size, TlsSettings
from tallystick.plugin import Source
from tallystick.sources.forward import ForwardSettings, ForwardSource
from tallystick.sources.syslog import SyslogSettings, SyslogSource
from tallystick.testing.source import MemoryIntake

Address = tuple[str, int]
WAITING = 512 * 1024
_KEY = "a shared key of the contract tests"
_NOW = event_time(1_768_832_635)


class Sender:
    """One connection of a client. Every record carries a number; ``confirmed`` are those that the source said are safe."""

    def __init__(self) -> None:
        self.confirmed: set[int] = set()

    def send(self, numbers: Iterable[int], pad: int = 0) -> None:
        """Hand records over; blocks while the source does not read. Raises OSError when it is gone."""
        raise NotImplementedError

    def listen(self, timeout_s: float = 10.0) -> bool:
        """Take the next acknowledgement; False when none came in time, or the protocol has none."""
        return False

    def close(self) -> None:
        raise NotImplementedError


class SourceHarness:
    """What the contract needs to know of a kind."""

    kind = ""
    acknowledges = False

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def make(self, waiting: int = 32 * 2**20) -> Source:
        """A new instance, which listens on a port of its own."""
        raise NotImplementedError

    def table(self, port: int) -> str:
        """The same as a table of a configuration file."""
        raise NotImplementedError

    def connect(self, address: Address) -> Sender:
        """A client that may send."""
        raise NotImplementedError

    def intrude(self, address: Address) -> None:
        """Somebody who may not tries; only for kinds that ask for proof."""
        raise NotImplementedError

    def send_too_long(self, address: Address) -> None:
        """One record past its bound, and a good one with the number 7 behind it."""
        raise NotImplementedError

    def number_of(self, event: dict[str, Any]) -> int:
        """The number of a record, from its event's metadata."""
        raise NotImplementedError

    def numbers(self, intake: MemoryIntake) -> list[int]:
        """Those of everything that was committed, in order."""
        return [self.number_of(json.loads(bytes(event.metadata))) for event in intake.events if event.metadata]


class _SyslogSender(Sender):
    def __init__(self, sock: socket.socket) -> None:
        super().__init__()
        self._sock = sock

    def send(self, numbers: Iterable[int], pad: int = 0) -> None:
        tail = b" " + b"x" * pad
        self._sock.sendall(b"".join(b"<13>1 - host app - - - %d%b\n" % (number, tail) for number in numbers))

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)
        self._sock.close()


class SyslogHarness(SourceHarness):
    kind = "syslog"

    def make(self, waiting: int = 32 * 2**20) -> Source:
        settings = SyslogSettings(listen="127.0.0.1:0", transport=("tcp",), waiting=Size(f"{waiting}B"), record=Size("8KiB"))
        return SyslogSource(settings, context_of(self.directory))

    def table(self, port: int) -> str:
        return f'[sources.net]\ntype = "syslog"\nlisten = "127.0.0.1:{port}"\n'

    def connect(self, address: Address) -> Sender:
        return _SyslogSender(socket.create_connection(address, timeout=10))

    def send_too_long(self, address: Address) -> None:
        sender = self.connect(address)
        sender.send([1], pad=20_000)
        sender.send([7])
        sender.close()

    def number_of(self, event: dict[str, Any]) -> int:
        return int(event["message"].split()[0])


class SyslogTlsHarness(SyslogHarness):
    kind = "syslog-tls"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.authority = Authority(directory)
        self._server, self._client = self.authority.issue("server", "localhost"), self.authority.issue("client")
        self._stranger = Authority(directory, "strangers").issue("mallory")

    def make(self, waiting: int = 32 * 2**20) -> Source:
        tls = TlsSettings(cert=str(self._server.cert), key=str(self._server.key), client_ca=str(self.authority.path))
        settings = SyslogSettings(
            listen="127.0.0.1:0",
            transport=("tcp",),
            waiting=Size(f"{waiting}B"),
            record=Size("8KiB"),
            tls=tls,
            clients={"client": "acme"},
        )
        return SyslogSource(settings, context_of(self.directory))

    def connect(self, address: Address) -> Sender:
        return self._connect(address, self._client)

    def intrude(self, address: Address) -> None:
        for pair in (None, self._stranger, self.authority.issue("unknown")):
            with contextlib.suppress(OSError):
                sender = self._connect(address, pair)
                sender.send([1])
                sender.close()
        with contextlib.suppress(OSError):
            plain = _SyslogSender(socket.create_connection(address, timeout=10))
            plain.send([1])
            plain.close()

    def _connect(self, address: Address, pair: Any) -> Sender:
        context = ssl.create_default_context(cafile=str(self.authority.path))
        if pair is not None:
            context.load_cert_chain(pair.cert, pair.key)
        return _SyslogSender(context.wrap_socket(socket.create_connection(address, timeout=10), server_hostname="localhost"))


class _ForwardSender(Sender):
    def __init__(self, client: ForwardClient) -> None:
        super().__init__()
        self._client = client

    def send(self, numbers: Iterable[int], pad: int = 0) -> None:
        """One chunk, named by its numbers: sent again it has the same name."""
        sent = list(numbers)
        entries = [(_NOW, {"n": number, "pad": "x" * pad}) for number in sent]
        self._client.send(packed_forward("contract", entries, f"{sent[0]}-{sent[-1]}"))

    def listen(self, timeout_s: float = 10.0) -> bool:
        self._client.sock.settimeout(timeout_s)
        try:
            first, _, last = self._client.ack().partition("-")
        except TimeoutError:
            return False
        finally:
            self._client.sock.settimeout(10)
        self.confirmed |= set(range(int(first), int(last) + 1))
        return True

    def close(self) -> None:
        self._client.sock.close()


class ForwardHarness(SourceHarness):
    kind = "forward"
    acknowledges = True

    def make(self, waiting: int = 32 * 2**20) -> Source:
        size = Size(f"{waiting}B")
        settings = ForwardSettings(listen="127.0.0.1:0", waiting=size, message=Size("256KiB"), shared_key=_KEY)
        return ForwardSource(settings, context_of(self.directory, event=Size("8KiB")))

    def table(self, port: int) -> str:
        return f'[sources.net]\ntype = "forward"\nlisten = "127.0.0.1:{port}"\nshared_key = "{_KEY}"\n'

    def connect(self, address: Address) -> Sender:
        client = ForwardClient(address)
        client.shake_hands(_KEY)
        return _ForwardSender(client)

    def intrude(self, address: Address) -> None:
        with contextlib.suppress(OSError), ForwardClient(address) as client:
            client.shake_hands("a key that is not the one")
            client.send(packed_forward("contract", [(_NOW, {"n": 1})], "1-1"))
            client.receive()
        with contextlib.suppress(OSError), ForwardClient(address) as client:
            client.send(packed_forward("contract", [(_NOW, {"n": 1})], "1-1"))
            client.receive()
            client.receive()

    def send_too_long(self, address: Address) -> None:
        client = ForwardClient(address)
        client.shake_hands(_KEY)
        client.send(pack(["contract", _NOW, "this is no record" * 1_000]) + packed_forward("contract", [(_NOW, {"n": 7})], "7-7"))
        client.ack()
        client.sock.close()

    def number_of(self, event: dict[str, Any]) -> int:
        return int(event["n"])


HARNESSES: dict[str, Callable[[Path], SourceHarness]] = {
    harness.kind: harness for harness in (SyslogHarness, SyslogTlsHarness, ForwardHarness)
}
