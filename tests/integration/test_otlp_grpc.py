"""OpenTelemetry's gRPC exporter, and gRPC by hand, against a real server."""

from __future__ import annotations

import gzip
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import LogsServiceStub

from support.certificates import Authority
from support.ledger import OURS
from support.otlp import log_record, log_request, numbered
from support.server import ADMIN_KEY, Server, free_port, wait_for

PAGE = (Path(__file__).parents[2] / "docs/sources/otlp.md").read_text("utf-8")
KEY = (("authorization", f"Bearer {ADMIN_KEY}"),)


class Site:
    """A server with a gRPC listener, and a stub for it."""

    def __init__(self, make_server: Callable[[str], Server], settings: str = "", more: str = "") -> None:
        self.port = free_port()
        self.server = make_server(f'[sources.otlp]\ntype = "otlp"\nlisten = "127.0.0.1:{self.port}"\n{settings}\n{more}').start()
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.port}", [("grpc.max_send_message_length", -1)])
        self.stub = LogsServiceStub(self.channel)

    def bodies(self) -> list[str]:
        lines = self.server.http.get("/v1/export", params={"query": OURS}).iter_lines()
        return [json.loads(line)["metadata"]["body"] for line in lines]


@pytest.fixture
def site(make_server: Callable[[str], Server]) -> Iterator[Site]:
    made = Site(make_server, 'message = "64KiB"')
    yield made
    made.channel.close()


def failure(call: Callable[[], Any]) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


def status_of(error: Any) -> Status:
    """The google.rpc.Status in the trailing metadata."""
    found = dict(error.trailing_metadata())["grpc-status-details-bin"]
    status = Status.FromString(found)
    assert (status.code, status.message) == (error.code().value[0], error.details())
    return status


def test_the_example_of_the_docs_runs(make_server: Callable[[str], Server], tmp_path: Path) -> None:
    """Both tables and the script as they stand there; the listener that is not asked for is not there."""
    blocks = re.findall(r"```(toml|python)\n(.*?)```", PAGE.partition("## gRPC")[2], re.DOTALL)
    toml = next(text for language, text in blocks if language == "toml")
    script = next(text for language, text in blocks if language == "python")
    port = free_port()
    server = make_server(toml.replace("4317", str(port))).start()
    (tmp_path / "example.py").write_text(script)
    environment = {**os.environ, "TALLYSTICK_GRPC": f"127.0.0.1:{port}", "TALLYSTICK_KEY": ADMIN_KEY}
    done = subprocess.run(
        [sys.executable, str(tmp_path / "example.py")], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    (event,) = server.http.get("/v1/events", params={"query": OURS}).json()["events"]
    assert (event["action"], event["source"]["name"]) == ("invoice.approve", "otlp")
    source = server.status()["sources"]["otlp"]
    assert (source["state"], source["listen"], source["accepted"]) == ("running", f"127.0.0.1:{port}", 1)


def test_calls_are_answered_as_http_is(site: Site) -> None:
    """Success, an empty request, and three good records with one that is too large; plain and gzip."""
    assert site.stub.Export(numbered(0, 3), metadata=KEY) == ExportLogsServiceResponse()
    assert site.stub.Export(log_request(), metadata=KEY, compression=grpc.Compression.Gzip) == ExportLogsServiceResponse()
    twice = log_record("bad", {"a": 1})
    twice.attributes.append(twice.attributes[0])
    answer = site.stub.Export(log_request(log_record("a"), twice, log_record("b")), metadata=KEY, compression=grpc.Compression.Gzip)
    assert answer.partial_success.rejected_log_records == 1
    assert "key_duplicate" in answer.partial_success.error_message
    assert site.bodies()[3:] == ["a", "b"]


def test_who_may_not_send_is_refused_before_the_message_is_read(site: Site) -> None:
    """No key, a wrong one, one without `ingest`; other services do not exist."""
    assert failure(lambda: site.stub.Export(numbered(0, 1))).code() is grpc.StatusCode.UNAUTHENTICATED
    wrong = failure(lambda: site.stub.Export(numbered(0, 1), metadata=(("authorization", "Bearer ts_x_" + "y" * 43),)))
    assert wrong.code() is grpc.StatusCode.UNAUTHENTICATED
    assert list(status_of(wrong).details) == []
    made = site.server.http.post("/v1/keys", json={"owner": "t", "purpose": "t", "tenants": [], "permissions": ["read"]}).json()
    reader = failure(lambda: site.stub.Export(numbered(0, 1), metadata=(("authorization", f"Bearer {made['secret']}"),)))
    assert reader.code() is grpc.StatusCode.PERMISSION_DENIED
    call = site.channel.unary_unary("/opentelemetry.proto.collector.trace.v1.TraceService/Export")
    assert failure(lambda: call(b"", metadata=KEY)).code() is grpc.StatusCode.UNIMPLEMENTED
    assert site.bodies() == []


def test_what_is_no_request_is_invalid_and_what_is_too_large_exhausted(site: Site) -> None:
    """Neither has a RetryInfo, so no client sends it again; a bomb is refused at the limit on what it becomes."""
    raw = site.channel.unary_unary("/opentelemetry.proto.collector.logs.v1.LogsService/Export")
    bad = failure(lambda: raw(b"\xff" * 20, metadata=KEY))
    assert bad.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert list(status_of(bad).details) == []
    for body, compression in ((os.urandom(70_000), grpc.Compression.NoCompression), (bytes(30_000_000), grpc.Compression.Gzip)):
        large = failure(lambda body=body, compression=compression: raw(body, metadata=KEY, compression=compression))
        assert large.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "grpc-status-details-bin" not in dict(large.trailing_metadata())
    assert len(gzip.compress(bytes(30_000_000))) < 64 * 1024
    assert site.stub.Export(log_request(log_record("fine")), metadata=KEY) == ExportLogsServiceResponse()
    assert site.bodies() == ["fine"]


def test_over_a_quota_a_call_is_to_come_again(make_server: Callable[[str], Server]) -> None:
    """RESOURCE_EXHAUSTED with a RetryInfo, which every OTLP client heeds."""
    site = Site(make_server, more='[tenants.default]\nevents_per_second = 1\n[limits]\nquota_burst = "1s"')
    site.stub.Export(numbered(0, 20), metadata=KEY)
    error = failure(lambda: site.stub.Export(numbered(20, 1), metadata=KEY))
    info = RetryInfo()
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert status_of(error).details[0].Unpack(info)
    assert info.retry_delay.seconds >= 1
    site.channel.close()


def test_an_address_in_use_is_told_and_tried_again(make_server: Callable[[str], Server]) -> None:
    """The server runs without the listener, says so in status, and has it once the address is free."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        server = make_server(f'[sources.otlp]\ntype = "otlp"\nlisten = "127.0.0.1:{port}"\n').start()
        source = wait_for(lambda: server.status()["sources"]["otlp"].get("reason"), "the reason in status")
        assert f"cannot listen on 127.0.0.1:{port}" in source
        assert server.http.post("/v1/logs", content=b"", headers={"Content-Type": "application/x-protobuf"}).status_code == 200
    wait_for(lambda: server.status()["sources"]["otlp"]["state"] == "running", "the listener", 30)


def test_tls_with_client_certificates(make_server: Callable[[str], Server], tmp_path: Path) -> None:
    """A client with a certificate of the CA gets in with its key; without one, or in clear, it gets no connection."""
    authority = Authority(tmp_path)
    own = authority.issue("localhost", "localhost")
    tls = f'tls = {{ cert = "{own.cert}", key = "{own.key}", client_ca = "{authority.path}" }}'
    site = Site(make_server, tls)
    root = authority.path.read_bytes()
    theirs = authority.issue("client")
    mutual = grpc.ssl_channel_credentials(root, theirs.key.read_bytes(), theirs.cert.read_bytes())
    with grpc.secure_channel(f"localhost:{site.port}", mutual) as channel:
        assert LogsServiceStub(channel).Export(numbered(0, 2), metadata=KEY, timeout=10) == ExportLogsServiceResponse()
    with grpc.secure_channel(f"localhost:{site.port}", grpc.ssl_channel_credentials(root)) as channel:
        error = failure(lambda: LogsServiceStub(channel).Export(numbered(0, 1), metadata=KEY, timeout=10))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert failure(lambda: site.stub.Export(numbered(0, 1), metadata=KEY, timeout=10)).code() is grpc.StatusCode.UNAVAILABLE
    site.channel.close()
    assert len(site.bodies()) == 2
