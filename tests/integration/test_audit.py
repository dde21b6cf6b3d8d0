"""Audit records against a real server: the page's examples, proofs that are demanded, a receipt that is checked offline."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from support.audit import audit_record, signed
from support.certificates import Authority
from support.ledger import OURS
from support.otlp import log_request
from support.server import ADMIN_KEY, Server

PAGE = (Path(__file__).parents[2] / "docs/sources/audit.md").read_text("utf-8")
PROTOBUF = {"Content-Type": "application/x-protobuf"}


def code_of(language: str) -> str:
    block = re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert block is not None
    return block[1]


def test_the_examples_of_the_docs_run(make_server: Callable[[str], Server], tmp_path: Path) -> None:
    """OpenTelemetry's exporter and curl, as they stand there; the receipt's hash is that of the stored `raw`."""
    server = make_server("").start()
    environment = {**os.environ, "TALLYSTICK_URL": server.url, "TALLYSTICK_KEY": ADMIN_KEY}
    script = tmp_path / "example.py"
    script.write_text(code_of("python"))
    done = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    posted = subprocess.run(["sh", "-c", code_of("sh")], env=environment, capture_output=True, text=True, timeout=60, check=True)
    receipt = json.loads(posted.stdout)
    events = server.http.get("/v1/events", params={"query": OURS, "order": "asc", "time": "received_at"}).json()["events"]
    assert [event["action"] for event in events] == ["user.login.success"] * 2
    stored = next(event for event in events if event["id"] == receipt["record_id"])
    assert hashlib.sha256(stored["raw"].encode()).hexdigest() == receipt["integrity_hash"]
    assert receipt["status"] == "delivered_all_sinks"


def test_proofs_that_are_demanded(make_server: Callable[[str], Server]) -> None:
    """With the page's table: a record signed by the producer's key is taken, a changed one and one without proof are not."""
    server = make_server("")
    pair = Authority(server.directory).issue("producer")
    key = serialization.load_pem_private_key(pair.key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    server.config.write_text(server.config.read_text() + code_of("toml"))
    server.start()
    request = signed(audit_record("good", count=7), lambda text: key.sign(text, ec.ECDSA(hashes.SHA256())), "ES256", "producer")
    taken = server.http.post("/v1/audit", content=request.SerializeToString(), headers=PROTOBUF)
    assert (taken.status_code, taken.json()["verify_status"]) == (200, "passed")
    record = request.resource_logs[0].scope_logs[0].log_records[0]
    record.event_name = "user.login.failure"
    changed = server.http.post("/v1/audit", content=request.SerializeToString(), headers=PROTOBUF)
    assert (changed.status_code, changed.json()["status"], changed.json()["verify_status"]) == (
        400,
        "rejected_verify_failed",
        "failed",
    )
    bare = server.http.post("/v1/audit", content=log_request(audit_record("bare")).SerializeToString(), headers=PROTOBUF)
    assert (bare.status_code, bare.json()["status"]) == (400, "rejected_verify_failed")
    events = server.http.get("/v1/events", params={"query": OURS}).json()["events"]
    assert [(event["id"], event["enrichment"]["audit"]["verify_status"]) for event in events] == [("good", "passed")]


def test_after_a_kill_receipts_still_hold(make_server: Callable[[str], Server]) -> None:
    """What was receipted is there after kill -9, in its place; sending it again gives the same place."""
    server = make_server('[seal]\nroot_interval = "500ms"\n').start()
    bodies = [log_request(audit_record(f"r{number}")).SerializeToString() for number in range(50)]
    before = [server.http.post("/v1/audit", content=body, headers=PROTOBUF).json() for body in bodies]
    server.kill()
    server.start()
    after = [server.http.post("/v1/audit", content=body, headers=PROTOBUF).json() for body in bodies]
    assert [(one["log"], one["index"], one["integrity_hash"]) for one in after] == [
        (one["log"], one["index"], one["integrity_hash"]) for one in before
    ]
    assert [one["index"] for one in before] == list(range(50))
    found = [json.loads(line) for line in server.http.get("/v1/export", params={"query": OURS}).iter_lines()]
    assert [event["id"] for event in found] == [f"r{number}" for number in range(50)]
