"""A real S3 and SQS endpoint for tests: moto's server as its own process on a free port of the loopback interface."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import httpx


@dataclass
class S3Server:
    """The endpoint, and the options that obstore needs to use it."""

    endpoint: str
    options: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.options = {
            "endpoint": self.endpoint,
            "region": "us-east-1",
            "access_key_id": "testing",
            "secret_access_key": "testing",
            "allow_http": "true",
        }

    def client(self, service: str = "s3") -> Any:
        """A boto3 client, to look at buckets and queues with somebody else's code."""
        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )

    def new_bucket(self) -> str:
        """A fresh, empty bucket's name."""
        name = f"test-{uuid.uuid4().hex[:12]}"
        self.client().create_bucket(Bucket=name)
        return name

    def new_queue(self, bucket: str | None = None) -> str:
        """A fresh queue's URL; ``bucket`` tells it of its new objects."""
        sqs = self.client("sqs")
        url = str(sqs.create_queue(QueueName=f"test-{uuid.uuid4().hex[:12]}")["QueueUrl"])
        if bucket is not None:
            arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
            telling = {"QueueConfigurations": [{"QueueArn": arn, "Events": ["s3:ObjectCreated:*"]}]}
            self.client().put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=telling)
            sqs.purge_queue(QueueUrl=url)  # of the test message that S3 sends then
        return url

    def waiting(self, queue: str) -> tuple[int, int]:
        """Messages of a queue that wait, and those that are hidden while somebody works on them."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.client("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=names)["Attributes"]
        return int(found[names[0]]), int(found[names[1]])


@contextmanager
def run_s3_server() -> Iterator[S3Server]:
    """Start moto's server, wait until it answers, and stop it at the end."""
    port = _free_port()
    program = Path(sys.executable).with_name("moto_server")
    environment = {**os.environ, "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
    process = subprocess.Popen(
        [program, "-H", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
    )
    try:
        endpoint = f"http://127.0.0.1:{port}"
        _wait_until_up(endpoint, process)
        yield S3Server(endpoint)
    finally:
        process.terminate()
        process.wait(10)


def _wait_until_up(endpoint: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"moto_server ended with {process.returncode}")
        try:
            httpx.get(f"{endpoint}/moto-api/", timeout=5)
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError("moto_server did not answer within 60 s")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
