"""One million events over eight connections while the server is killed ten times."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import zstandard

from support.generate import numbered
from support.moto import S3Server
from support.server import ADMIN_KEY, Server, wait_for

EVENTS = 1_000_000
BATCH = 1_000
SENDERS = 8
KILLS = 10


class Senders:
    """Eight connections that send numbered batches, again and again until each is accepted; the tester's own ledger."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._next = iter(range(0, EVENTS, BATCH))
        self._lock = threading.Lock()
        self.accepted = 0
        self.failures: list[str] = []
        self._threads = [threading.Thread(target=self._run) for _ in range(SENDERS)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        with httpx.Client(base_url=self._server.url, headers={"Authorization": f"Bearer {ADMIN_KEY}"}, timeout=60) as client:
            while True:
                with self._lock:
                    first = next(self._next, None)
                if first is None:
                    return
                self._send(client, numbered(first, BATCH))

    def _send(self, client: httpx.Client, body: bytes) -> None:
        deadline = time.monotonic() + 120
        while True:
            try:
                answer = client.post("/v1/events", content=body, headers={"Content-Type": "application/x-ndjson"})
            except httpx.TransportError:
                answer = None
            if answer is not None and answer.status_code == 200:
                counts = answer.json()
                with self._lock:
                    self.accepted += counts["accepted"] + counts["duplicates"]
                return
            if answer is not None and answer.status_code != 503:
                self.failures.append(f"{answer.status_code} {answer.text[:300]}")
                return
            if time.monotonic() > deadline:
                self.failures.append("no answer for two minutes")
                return
            time.sleep(0.05)


@pytest.mark.timeout(900)
def test_kills_under_load_lose_and_repeat_nothing(make_server: Callable[[str], Server], s3_server: S3Server) -> None:
    """After ten kill -9 under load, each of a million accepted events is once in search, archive, file and bucket; verify passes."""
    bucket = s3_server.new_bucket()
    server = make_server(_configuration(s3_server, bucket)).start()
    senders = Senders(server)
    senders.start()
    chance = random.Random(20260301)
    for kill in range(KILLS):
        _wait_progress(senders, EVENTS * (kill + 1) // (KILLS + 2))
        time.sleep(chance.uniform(0, 0.3))
        server.kill()
        server.start(wait=False)
    senders.join()
    assert senders.failures == []
    assert senders.accepted == EVENTS
    server.wait_ready()
    server.drain(EVENTS, destinations=("disk", "lake"), timeout_s=300)

    expected = {f"e-{number}": 1 for number in range(EVENTS)}
    assert _once(Counter(_ids(server.directory / "out.jsonl")), expected)
    assert _once(Counter(_bucket_ids(s3_server, bucket)), expected)
    assert _once(Counter(_exported_ids(server)), expected)
    wait_for(lambda: _balances(server), "the account of both destinations to balance")
    server.stop()
    done = server.verify()
    assert json.loads(done.stdout)["events"] >= EVENTS


def _balances(server: Server) -> bool:
    """accepted = delivered + filtered + dead-lettered + pending, at each destination."""
    page = server.status()
    return all(
        row["delivered"] + sum(row["filtered"].values()) + row["dead_lettered"] + row["pending"]
        == sum(tenant["accepted"] for tenant in page["tenants"].values())
        for row in page["destinations"].values()
    )


def _configuration(moto: S3Server, bucket: str) -> str:
    options = ", ".join(f'{name} = "{value}"' for name, value in moto.options.items())
    return f"""
[archive]
max_age = "2s"
[destinations.disk]
type = "file"
path = "out.jsonl"
where = "NOT action:tallystick.*"
[destinations.lake]
type = "object_store"
url = "s3://{bucket}/audit"
where = "NOT action:tallystick.*"
options = {{ {options} }}
"""


def _wait_progress(senders: Senders, accepted: int) -> None:
    deadline = time.monotonic() + 300
    while senders.accepted < accepted and not senders.failures:
        assert time.monotonic() < deadline, f"only {senders.accepted} of {accepted} accepted"
        time.sleep(0.02)


def _once(found: Counter[str], expected: dict[str, int]) -> bool:
    missing = [name for name in expected if name not in found]
    repeated = [name for name, count in found.items() if count != 1]
    foreign = [name for name in found if name not in expected]
    assert (missing[:5], repeated[:5], foreign[:5]) == ([], [], []), f"{len(missing)} missing, {len(repeated)} repeated"
    return True


def _ids(path: Path) -> list[str]:
    with path.open("rb") as file:
        return [json.loads(line)["id"] for line in file]


def _bucket_ids(moto: S3Server, bucket: str) -> list[str]:
    client = moto.client()
    ids: list[str] = []
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for item in page.get("Contents", []):
            if item["Key"].endswith(".zst"):
                body = client.get_object(Bucket=bucket, Key=item["Key"])["Body"].read()
                plain = zstandard.ZstdDecompressor().decompressobj().decompress(body)
                ids += [json.loads(line)["id"] for line in plain.splitlines()]
    return ids


def _exported_ids(server: Server) -> list[str]:
    with server.http.stream("GET", "/v1/export", params={"query": "NOT action:tallystick.*"}, timeout=300) as answer:
        assert answer.status_code == 200
        return [json.loads(line)["id"] for line in answer.iter_lines() if line]
