"""The source `s3` in a whole server, against moto's S3 and SQS: the page's own configuration, kill -9, a real CloudTrail file."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from support.ledger import CONFIGURATION, Ledger
from support.moto import S3Server
from support.queues import exported, kill_while_reading
from support.server import Server, wait_for

PAGE = (Path(__file__).parents[2] / "docs" / "sources" / "s3.md").read_text("utf-8")
TOML = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
QUEUE = "https://sqs.eu-central-1.amazonaws.com/111122223333/tallystick"


def on_page(server: S3Server, queue: str) -> str:
    """The page's configuration, with the test's queue and endpoint."""
    assert QUEUE in TOML[0]
    return TOML[0].replace(f'queue = "{QUEUE}"', f'queue = "{queue}"\nregion = "us-east-1"\nendpoint = "{server.endpoint}"')


def start(make_server: Callable[..., Server], s3_server: S3Server, text: str) -> Server:
    server = make_server(text)
    server.environment |= {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
    return server


def record(number: int) -> dict[str, object]:
    """As docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-record-contents.html."""
    return {
        "eventVersion": "1.11", "eventTime": f"2026-03-01T10:00:{number:02d}Z", "eventSource": "iam.amazonaws.com",
        "eventName": "CreateUser", "awsRegion": "us-east-1", "sourceIPAddress": "192.0.2.7", "eventID": f"e-{number}",
        "userIdentity": {"type": "IAMUser", "arn": "arn:aws:iam::111122223333:user/ann", "userName": "ann"},
    }  # fmt: skip


def test_the_pages_configuration_reads_cloudtrails_files(make_server: Callable[..., Server], s3_server: S3Server) -> None:
    """By the chain's credentials; records become events by their own ids, digests are left out, what is damaged is in the quarantine."""
    bucket = s3_server.new_bucket()
    queue = s3_server.new_queue(bucket)
    put = s3_server.client().put_object
    folder = "AWSLogs/111122223333/CloudTrail/us-east-1/2026/03/01"
    put(
        Bucket=bucket,
        Key=f"{folder}/a.json.gz",
        Body=gzip.compress(json.dumps({"Records": [record(n) for n in range(3)]}).encode()),
    )
    put(Bucket=bucket, Key="AWSLogs/111122223333/CloudTrail-Digest/d.json.gz", Body=gzip.compress(b'{"digestS3Object":"x"}'))
    put(Bucket=bucket, Key=f"{folder}/b.json.gz", Body=b"\x1f\x8bbroken")
    text = on_page(s3_server, queue).replace("audit-trail-111122223333", bucket)
    server = start(make_server, s3_server, text).start()
    wait_for(lambda: s3_server.waiting(queue) == (0, 0), "all messages to be deleted")
    wait_for(lambda: server.status()["sources"]["trail"]["in_hand"] == 0, "the last deletion to be known")
    row = server.status()["sources"]["trail"]
    assert (row["accepted"], row["quarantined"], row["objects"], row["missing"]) == (3, 1, 2, 0)
    server.drain(3, "acme")
    found = exported(server, "source.name:trail")
    assert sorted(str(one["id"]).partition(".")[0] for one in found) == ["e-0", "e-1", "e-2"]
    assert {one["action"] for one in found} == {"iam.CreateUser"}
    (bad,) = server.http.get("/v1/quarantine", params={"tenant": "acme"}).json()["records"]
    assert bad["code"] == "object_unreadable"
    metrics = server.http.get("/metrics").text
    assert re.search(r'tallystick_s3_objects_total\{[^}]*source="trail"[^}]*\} 2', metrics)


@pytest.mark.timeout(240)
def test_kills_while_reading_lose_and_repeat_nothing(make_server: Callable[..., Server], s3_server: S3Server) -> None:
    """kill -9 four times while 10,000 events in 40 objects are read in pieces of 20: each is there once, and verify passes."""
    bucket = s3_server.new_bucket()
    queue = s3_server.new_queue(bucket)
    client = s3_server.client()
    table = on_page(s3_server, queue).replace("audit-trail-111122223333", bucket).replace("aws_cloudtrail", "native")
    table = table.replace('tenant = "acme"', 'visibility = "2s"\nbatch_records = 20\nworkers = 1')
    server = start(make_server, s3_server, CONFIGURATION + table)
    keys = iter(range(1000))
    ledger = Ledger()

    def publish(bodies: list[bytes]) -> None:
        ledger.abandon([json.loads(body)["id"] for body in bodies])  # a queue keeps no order
        client.put_object(Bucket=bucket, Key=f"log/{next(keys)}.jsonl.gz", Body=gzip.compress(b"\n".join(bodies)))

    kill_while_reading(server, ledger, publish, "trail", 11)
    wait_for(lambda: s3_server.waiting(queue) == (0, 0), "all messages to be deleted")
