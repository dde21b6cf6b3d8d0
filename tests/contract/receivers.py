"""Harnesses of the destinations whose product cannot run here: a receiver of `tallystick.testing` stands for it.

Where the guarantee is at least once, an event that came again counts once, told apart by its id as a user of that product would.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from contract.destinations import Harness
from support.rsyslog_sink import RsyslogSink, run_rsyslog_sink
from support.server import free_port
from support.smtp_server import PASSWORD, USER, SmtpServer, run_smtp_server
from tallystick.config import Duration
from tallystick.destinations.datadog import DatadogDestination, DatadogSettings
from tallystick.destinations.email import EmailDestination, EmailSettings
from tallystick.destinations.forward import ForwardDestination, ForwardSettings
from tallystick.destinations.loki import LokiDestination, LokiSettings
from tallystick.destinations.opensearch import OpenSearchDestination, OpenSearchSettings
from tallystick.destinations.otlp import OtlpDestination, OtlpSettings
from tallystick.destinations.pagerduty import PagerDutyDestination, PagerDutySettings
from tallystick.destinations.slack import SlackDestination, SlackSettings
from tallystick.destinations.splunk_hec import SplunkHecDestination, SplunkHecSettings
from tallystick.destinations.syslog import SyslogDestination, SyslogSettings
from tallystick.plugin import Destination
from tallystick.sources.remote import RemoteTlsSettings
from tallystick.testing.datadog import DatadogReceiver
from tallystick.testing.forward import ForwardReceiver
from tallystick.testing.loki import LokiReceiver
from tallystick.testing.opensearch import OpenSearchReceiver
from tallystick.testing.otlp import OtlpReceiver
from tallystick.testing.pagerduty import PagerDutyReceiver
from tallystick.testing.receiver import Said
from tallystick.testing.slack import SlackReceiver
from tallystick.testing.splunk import SplunkReceiver, said


def in_order(ids: Iterable[str]) -> list[str]:
    """By number: these products have no order of their own."""
    return sorted(ids, key=lambda name: int(name.rpartition("-")[2]))


class OpenSearchHarness(Harness):
    kind = "opensearch"

    def __init__(self, receiver: OpenSearchReceiver) -> None:
        self.receiver = receiver
        receiver.password = "open sesame"

    def settings(self, **changes: Any) -> OpenSearchSettings:
        mine = {"url": self.receiver.url, "allow_private": True, "username": "admin", "password": "open sesame"}
        return OpenSearchSettings(**(mine | changes))

    def make(self) -> Destination:
        return OpenSearchDestination("search", self.settings())

    def ids(self) -> list[str]:
        return in_order(document["id"] for document in self.receiver.indexes.get("audit-acme", {}).values())

    def content(self) -> dict[str, Any]:
        return {document["id"]: (name, document) for name, document in self.receiver.indexes["audit-acme"].items()}

    def remove(self, event_id: str) -> None:
        del self.receiver.indexes["audit-acme"][self.content()[event_id][0]]

    def add_stranger(self) -> list[int]:
        self.receiver.indexes["audit-acme"]["stranger"] = {"id": "stranger"}
        return []

    def alter(self, event_id: str) -> None:
        name, document = self.content()[event_id]
        self.receiver.indexes["audit-acme"][name] = document | {"outcome": "failure"}

    @contextmanager
    def broken(self) -> Iterator[Callable[[], Destination]]:
        self.receiver.script = [Said(500)] * 1_000
        yield self.make
        self.receiver.script = []

    @contextmanager
    def parked(self) -> Iterator[Callable[[], Destination]]:
        yield lambda: OpenSearchDestination("search", self.settings(password="wrong"))


class SplunkHarness(Harness):
    kind = "splunk_hec"

    def __init__(self, receiver: SplunkReceiver) -> None:
        self.receiver = receiver
        self.token = next(iter(receiver.tokens))

    def settings(self, **changes: Any) -> SplunkHecSettings:
        return SplunkHecSettings(**({"url": self.receiver.url, "allow_private": True, "token": self.token} | changes))

    def make(self) -> Destination:
        return SplunkHecDestination("splunk", self.settings())

    def ids(self) -> list[str]:
        return in_order({event["event"]["id"] for event in self.receiver.events})

    @contextmanager
    def broken(self) -> Iterator[Callable[[], Destination]]:
        self.receiver.script = [said(8)] * 1_000
        yield self.make
        self.receiver.script = []

    @contextmanager
    def parked(self) -> Iterator[Callable[[], Destination]]:
        yield lambda: SplunkHecDestination("splunk", self.settings(token="wrong"))


class LokiHarness(Harness):
    kind = "loki"

    def __init__(self, receiver: LokiReceiver) -> None:
        self.receiver = receiver
        receiver.password = "open sesame"

    def settings(self, **changes: Any) -> LokiSettings:
        mine = {"url": self.receiver.url, "allow_private": True, "username": "loki", "password": "open sesame"}
        return LokiSettings(**(mine | changes))

    def make(self) -> Destination:
        return LokiDestination("loki", self.settings())

    def ids(self) -> list[str]:
        return [json.loads(line)["id"] for entries in self.receiver.streams.values() for _, line in entries]

    @contextmanager
    def broken(self) -> Iterator[Callable[[], Destination]]:
        self.receiver.script = [Said(500)] * 1_000
        yield self.make
        self.receiver.script = []

    @contextmanager
    def parked(self) -> Iterator[Callable[[], Destination]]:
        yield lambda: LokiDestination("loki", self.settings(password="wrong"))


class DatadogHarness(Harness):
    kind = "datadog"

    def __init__(self, receiver: DatadogReceiver) -> None:
        self.receiver = receiver

    def settings(self, **changes: Any) -> DatadogSettings:
        mine = {"url": self.receiver.url, "allow_private": True, "api_key": next(iter(self.receiver.api_keys))}
        return DatadogSettings(**(mine | changes))

    def make(self) -> Destination:
        return DatadogDestination("dd", self.settings())

    def ids(self) -> list[str]:
        return in_order({json.loads(entry["message"])["id"] for entry in self.receiver.entries})

    @contextmanager
    def broken(self) -> Iterator[Callable[[], Destination]]:
        self.receiver.script = [Said(500)] * 1_000
        yield self.make
        self.receiver.script = []

    @contextmanager
    def parked(self) -> Iterator[Callable[[], Destination]]:
        yield lambda: DatadogDestination("dd", self.settings(api_key="wrong"))


class SlackHarness(Harness):
    kind = "slack"

    def __init__(self, receiver: SlackReceiver) -> None:
        self.receiver = receiver

    def settings(self, **changes: Any) -> SlackSettings:
        return SlackSettings(**({"url": self.receiver.webhook, "allow_private": True, "interval": Duration("1ms")} | changes))

    def make(self) -> Destination:
        return SlackDestination("chat", self.settings())

    def ids(self) -> list[str]:
        """Out of the text, each once."""
        return list(
            dict.fromkeys(found for text in self.receiver.messages for found in re.findall(r" · (\S+)$", text, re.MULTILINE))
        )

    @contextmanager
    def broken(self) -> Iterator[Callable[[], Destination]]:
        self.receiver.script = [Said(500, b"rollup_error")] * 1_000
        yield self.make
        self.receiver.script = []

    @contextmanager
    def parked(self) -> Iterator[Callable[[], Destination]]:
        yield lambda: SlackDestination("chat", self.settings(url=self.receiver.url + "/services/gone"))


class EmailHarness(Harness):
    """A real SMTP server with STARTTLS and a login."""

    kind = "email"

    def __init__(self, server: SmtpServer) -> None:
        self.server = server

    def settings(self, **changes: Any) -> EmailSettings:
        mine = {
            "host": "127.0.0.1", "port": self.server.port, "sender": "audit@example.com", "to": ("oncall@example.com",),
            "username": USER, "password": PASSWORD, "tls": RemoteTlsSettings(ca=str(self.server.ca)), "interval": Duration("1ms"),
        }  # fmt: skip
        return EmailSettings(**(mine | changes))

    def make(self) -> Destination:
        return EmailDestination("mail", self.settings())

    def ids(self) -> list[str]:
        """Out of the texts, each message once, as a reader that knows message ids has it."""
        once = dict(zip((message["Message-ID"] for message in self.server.messages), self.server.texts(), strict=True))
        return [found for text in once.values() for found in re.findall(r"^  id: (\S+)$", text, re.MULTILINE)]

    @contextmanager
    def broken(self) -> Iterator[Callable[[], Destination]]:
        self.server.data = "451 4.3.0 later"
        yield self.make
        self.server.data = ""

    @contextmanager
    def parked(self) -> Iterator[Callable[[], Destination]]:
        yield lambda: EmailDestination("mail", self.settings(password="wrong"))


class PagerDutyHarness(Harness):
    kind = "pagerduty"

    def __init__(self, receiver: PagerDutyReceiver) -> None:
        self.receiver = receiver

    def settings(self, **changes: Any) -> PagerDutySettings:
        mine = {"url": self.receiver.url, "allow_private": True, "routing_key": self.receiver.routing_key}
        return PagerDutySettings(**(mine | {"interval": Duration("1ms")} | changes))

    def make(self) -> Destination:
        return PagerDutyDestination("pager", self.settings())

    def ids(self) -> list[str]:
        """One an incident."""
        return list(dict.fromkeys(event["payload"]["custom_details"]["id"] for event in self.receiver.events))

    @contextmanager
    def broken(self) -> Iterator[Callable[[], Destination]]:
        self.receiver.script = [Said(500)] * 1_000
        yield self.make
        self.receiver.script = []

    @contextmanager
    def parked(self) -> Iterator[Callable[[], Destination]]:
        yield lambda: PagerDutyDestination("pager", self.settings(routing_key="wrong"))


class OtlpHarness(Harness):
    kind = "otlp"

    def __init__(self, receiver: OtlpReceiver) -> None:
        self.receiver = receiver
        receiver.token = "open sesame"

    def settings(self, token: str = "open sesame") -> OtlpSettings:
        return OtlpSettings(url=self.receiver.url, allow_private=True, headers={"authorization": f"Bearer {token}"})

    def make(self) -> Destination:
        return OtlpDestination("otel", self.settings())

    def ids(self) -> list[str]:
        return in_order({record.attributes[0].value.string_value for record in self.receiver.records})

    @contextmanager
    def broken(self) -> Iterator[Callable[[], Destination]]:
        self.receiver.script = [Said(500)] * 1_000
        yield self.make
        self.receiver.script = []

    @contextmanager
    def parked(self) -> Iterator[Callable[[], Destination]]:
        yield lambda: OtlpDestination("otel", self.settings(token="wrong"))


class SyslogHarness(Harness):
    """A real rsyslogd over TLS."""

    kind = "syslog"

    def __init__(self, sink: RsyslogSink) -> None:
        self.sink = sink

    def settings(self, **changes: Any) -> SyslogSettings:
        tls = RemoteTlsSettings(ca=str(self.sink.ca))
        return SyslogSettings(
            **({"host": "127.0.0.1", "port": self.sink.tls_port, "tls": tls, "timeout": Duration("10s")} | changes)
        )

    def make(self) -> Destination:
        return SyslogDestination("siem", self.settings())

    def ids(self) -> list[str]:
        """What it wrote, each once."""
        return list(dict.fromkeys(json.loads(text)["id"] for text in self.sink.texts()))

    @contextmanager
    def broken(self) -> Iterator[Callable[[], Destination]]:
        dead = free_port()
        yield lambda: SyslogDestination("siem", self.settings(port=dead))

    @contextmanager
    def parked(self) -> Iterator[Callable[[], Destination]]:
        yield lambda: SyslogDestination("siem", self.settings(tls=RemoteTlsSettings(ca=str(self.sink.stranger))))


class ForwardHarness(Harness):
    kind = "forward"

    def __init__(self, receiver: ForwardReceiver) -> None:
        self.receiver = receiver
        receiver.shared_key = "a key that both know"

    def settings(self, **changes: Any) -> ForwardSettings:
        mine = {"host": "127.0.0.1", "port": self.receiver.port, "shared_key": "a key that both know"}
        return ForwardSettings(**(mine | changes))

    def make(self) -> Destination:
        return ForwardDestination("fluent", self.settings())

    def ids(self) -> list[str]:
        return list(dict.fromkeys(record["id"] for _, _, record in self.receiver.entries))

    @contextmanager
    def broken(self) -> Iterator[Callable[[], Destination]]:
        self.receiver.is_up = False
        yield self.make
        self.receiver.is_up = True

    @contextmanager
    def parked(self) -> Iterator[Callable[[], Destination]]:
        yield lambda: ForwardDestination("fluent", self.settings(shared_key="another"))


RECEIVERS: dict[str, tuple[Callable[[], Any], Callable[[Any], Harness]]] = {
    "datadog": (DatadogReceiver, DatadogHarness),
    "email": (run_smtp_server, EmailHarness),
    "forward": (ForwardReceiver, ForwardHarness),
    "loki": (LokiReceiver, LokiHarness),
    "opensearch": (OpenSearchReceiver, OpenSearchHarness),
    "otlp": (OtlpReceiver, OtlpHarness),
    "pagerduty": (PagerDutyReceiver, PagerDutyHarness),
    "slack": (SlackReceiver, SlackHarness),
    "syslog": (run_rsyslog_sink, SyslogHarness),
    "splunk_hec": (SplunkReceiver, SplunkHarness),
}
"""Kind → its receiver, a context manager, and the harness made with it."""
