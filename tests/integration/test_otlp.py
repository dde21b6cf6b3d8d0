"""OpenTelemetry's own exporters against a real server."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider, ReadWriteLogRecord
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExportResult
from opentelemetry.sdk.resources import Resource

from support.ledger import OURS
from support.server import ADMIN_KEY, Server

PAGE = (Path(__file__).parents[2] / "docs/sources/otlp.md").read_text("utf-8")


def events(server: Server, tenant: str | None = None) -> list[dict[str, Any]]:
    params = {"query": OURS, "order": "asc", "limit": "1000"} | ({"tenant": tenant} if tenant else {})
    found: list[dict[str, Any]] = server.http.get("/v1/events", params=params).json()["events"]
    return found


def code_of(page: str, language: str) -> str:
    """The first block of code in that language."""
    block = re.search(rf"```{language}\n(.*?)```", page, re.DOTALL)
    assert block is not None
    return block[1]


def test_the_example_of_the_docs_runs(make_server: Callable[[str], Server], tmp_path: Path) -> None:
    """As it stands there, in an interpreter of its own: one event, with what the page says of it."""
    server = make_server("").start()
    script = tmp_path / "example.py"
    script.write_text(code_of(PAGE, "python"))
    environment = {**os.environ, "TALLYSTICK_URL": server.url, "TALLYSTICK_KEY": ADMIN_KEY}
    done = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    (event,) = events(server)
    assert (event["action"], event["outcome"], event["severity"]) == ("invoice.approve", "success", 1)
    assert event["actor"] == {"type": "user", "id": "u_17"}
    assert event["context"] == {"ip": "203.0.113.7"}
    assert event["metadata"]["body"] == "invoice 7 approved"
    assert event["metadata"]["attributes"] == {"invoice": 7}
    assert event["metadata"]["resource"]["attributes"]["service.name"] == "checkout"
    assert event["metadata"]["scope"] == {"name": "checkout.audit"}


def test_the_environment_is_enough_and_a_source_has_its_tenant(
    make_server: Callable[[str], Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variables of the docs, with the base endpoint of a declared source; `tallystick check` accepts its table."""
    toml = code_of(PAGE.partition("## Sources of your own")[2], "toml")
    server = make_server(f'{toml}\n[transforms.noise]\ntype = "filter"\ndrop = "action:health.check"\n').start()
    shell = dict(re.findall(r'^(OTEL\w+)="?([^"\n]*)"?$', code_of(PAGE, "sh"), re.MULTILINE))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_LOGS_HEADERS", shell["OTEL_EXPORTER_OTLP_LOGS_HEADERS"].replace("ts_…", ADMIN_KEY))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"{server.url}/v1/in/shop")
    exporter = OTLPLogExporter()
    records = [LogRecord(timestamp=1, event_name=name) for name in ("health.check", "user.login")]
    assert exporter.export([ReadWriteLogRecord(record) for record in records]) is LogRecordExportResult.SUCCESS
    assert [event["action"] for event in events(server, "acme")] == ["user.login"]


@pytest.mark.parametrize("compression", [Compression.NoCompression, Compression.Gzip])
def test_a_batch_processor_loses_nothing(make_server: Callable[[str], Server], compression: Compression) -> None:
    """Three thousand records from four threads, with every kind of value, plain and compressed."""
    server = make_server("").start()
    exporter = OTLPLogExporter(f"{server.url}/v1/logs", headers={"Authorization": f"Bearer {ADMIN_KEY}"}, compression=compression)
    provider = LoggerProvider(Resource.create({"service.name": "shop"}))
    provider.add_log_record_processor(BatchLogRecordProcessor(exporter, max_queue_size=5000, schedule_delay_millis=50))
    logger = provider.get_logger("audit", "1.0")

    def emit(sender: int) -> None:
        for number in range(750):
            logger.emit(
                event_name=f"sender.{sender}",
                severity_number=SeverityNumber.WARN,
                body={"number": number, "nested": {"list": [1, 2.5, True, None, "x"], "bytes": b"\x00\x01"}},
                attributes={"user.id": f"u_{number}", "tags": ["a", "b"]},
            )

    threads = [threading.Thread(target=emit, args=(sender,)) for sender in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert provider.force_flush(30_000)
    provider.shutdown()
    found: dict[str, list[int]] = {}
    for line in server.http.get("/v1/export", params={"query": OURS}).iter_lines():
        event = json.loads(line)
        found.setdefault(event["action"], []).append(event["metadata"]["body"]["number"])
        assert event["metadata"]["body"]["nested"] == {"list": [1, 2.5, True, None, "x"], "bytes": "AAE="}
        assert event["metadata"]["attributes"]["tags"] == ["a", "b"]
    assert {action: sorted(numbers) for action, numbers in found.items()} == {f"sender.{n}": list(range(750)) for n in range(4)}
