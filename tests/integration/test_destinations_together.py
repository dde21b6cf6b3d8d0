"""One server delivers to eight products at once, is killed in the middle of it, and every event arrives at each of them."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from support.rsyslog_sink import run_rsyslog_sink
from support.server import Server, wait_for
from tallystick.testing.datadog import DatadogReceiver
from tallystick.testing.forward import ForwardReceiver
from tallystick.testing.loki import LokiReceiver
from tallystick.testing.opensearch import OpenSearchReceiver
from tallystick.testing.otlp import OtlpReceiver
from tallystick.testing.slack import SlackReceiver
from tallystick.testing.splunk import SplunkReceiver

TABLES = """
[seal]
root_interval = "0s"
[destinations.opensearch]
type = "opensearch"
url = "{opensearch}"
allow_private = true
batch = {{ max_age = "50ms", max_events = 50 }}
[destinations.splunk]
type = "splunk_hec"
url = "{splunk}"
token = "{token}"
allow_private = true
batch = {{ max_age = "50ms", max_events = 50 }}
[destinations.loki]
type = "loki"
url = "{loki}"
allow_private = true
batch = {{ max_age = "50ms", max_events = 50 }}
[destinations.datadog]
type = "datadog"
url = "{datadog}"
api_key = "{api_key}"
allow_private = true
batch = {{ max_age = "50ms", max_events = 50 }}
[destinations.otlp]
type = "otlp"
url = "{otlp}"
allow_private = true
batch = {{ max_age = "50ms", max_events = 50 }}
[destinations.slack]
type = "slack"
url = "{slack}"
allow_private = true
interval = "10ms"
where = "action:user.locked"
batch = {{ max_age = "50ms" }}
[destinations.fluent]
type = "forward"
host = "127.0.0.1"
port = {forward}
batch = {{ max_age = "50ms", max_events = 50 }}
[destinations.siem]
type = "syslog"
host = "127.0.0.1"
port = {syslog}
batch = {{ max_age = "50ms", max_events = 50 }}
"""
EVENTS = 300


def ndjson(first: int) -> bytes:
    """Every hundredth event is of a locked user."""
    rows = [
        {"id": f"e-{n}", "action": "user.locked" if n % 100 == 0 else "user.login", "actor": f"u_{n}"}
        for n in range(first, first + EVENTS)
    ]
    return b"\n".join(json.dumps(row).encode() for row in rows)


def ours(ids: Any) -> Counter[str]:
    """Ids of the test's events, with how often each came."""
    return Counter(name for name in ids if name.startswith("e-"))


def test_every_event_arrives_everywhere_over_a_kill(make_server: Callable[[str], Server]) -> None:
    """At least once each; once where the product tells repeats apart. Accounts agree, and say what is guaranteed."""
    with ExitStack() as stack:
        opensearch, splunk, loki = (stack.enter_context(kind()) for kind in (OpenSearchReceiver, SplunkReceiver, LokiReceiver))
        datadog, otlp, slack = (stack.enter_context(kind()) for kind in (DatadogReceiver, OtlpReceiver, SlackReceiver))
        forward, siem = stack.enter_context(ForwardReceiver()), stack.enter_context(run_rsyslog_sink())
        urls = {"opensearch": opensearch.url, "splunk": splunk.url, "loki": loki.url, "datadog": datadog.url, "otlp": otlp.url}
        keys = {"token": next(iter(splunk.tokens)), "api_key": next(iter(datadog.api_keys)), "slack": slack.webhook}
        server = make_server(TABLES.format(**urls, **keys, forward=forward.port, syslog=siem.tcp_port)).start()
        stack.callback(server.stop)  # before the receivers end: their ports may be somebody else's at once
        server.send_ok(ndjson(0))
        wait_for(lambda: opensearch.indexes.get("audit-default"), "the first documents")
        server.kill()
        server.start()
        server.send_ok(ndjson(EVENTS))
        names = ("opensearch", "splunk", "loki", "datadog", "otlp", "slack", "fluent", "siem")
        server.drain(2 * EVENTS, destinations=names)
        everything = {f"e-{n}" for n in range(2 * EVENTS)}
        arrived = {
            "opensearch": ours(document["id"] for document in opensearch.indexes["audit-default"].values()),
            "splunk": ours(event["event"]["id"] for event in splunk.events),
            "loki": ours(json.loads(line)["id"] for entries in loki.streams.values() for _, line in entries),
            "datadog": ours(json.loads(entry["message"])["id"] for entry in datadog.entries),
            "otlp": ours(record.attributes[0].value.string_value for record in otlp.records),
            "fluent": ours(record["id"] for _, _, record in forward.entries),
            "siem": ours(json.loads(text)["id"] for text in siem.texts()),
        }
        for name, found in arrived.items():
            assert set(found) == everything, name
        assert set(arrived["opensearch"].values()) == set(arrived["loki"].values()) == {1}
        locked = ours(found for text in slack.messages for found in re.findall(r" · (e-\d+)$", text, re.MULTILINE))
        assert set(locked) == {f"e-{n}" for n in range(0, 2 * EVENTS, 100)}
        page = server.status()["destinations"]
        assert {name: page[name]["dead_lettered"] for name in names} == dict.fromkeys(names, 0)
        assert (page["siem"]["guarantee"], page["splunk"]["guarantee"]) == ("best effort", "at least once")
