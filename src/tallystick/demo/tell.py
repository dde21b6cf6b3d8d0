"""Sends the story to a running server, through the same doors that anyone uses."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

import msgspec

from tallystick.client import Client, ProblemError
from tallystick.demo.cast import Told
from tallystick.demo.story import tell
from tallystick.durable import replace_file, write_new

DIRECTORY = Path("demo-data")
FIRST_PAGE = "/?tenant=northwind&from=-7d"
"""Where the story is told: its tenant, and a time that holds all of it."""

CONFIGURATION = """\
# The demo's configuration: two declared sources and two destinations. docs/configuration.md lists every setting.
[archive]
max_age = "15s"

[console]
notice = "Someone exported the customers. Who?"

[sources.github]
type = "http"
mapping = "github_audit"
tenant = "northwind"

[sources.cloudtrail]
type = "http"
mapping = "aws_cloudtrail"
tenant = "northwind"

[destinations.disk]
type = "file"
path = "out/events.jsonl"

[destinations.lake]
type = "object_store"
url = "out/lake"
where = "category:(authentication OR authorization) OR action:*.export"
batch = { max_age = "2s" }
"""


def prepare(directory: Path = DIRECTORY) -> Path:
    """Make the demo's directory and configuration when they are not there; returns the configuration's path."""
    path = directory / "tallystick.toml"
    if not path.exists():
        directory.mkdir(parents=True, exist_ok=True)
        write_new(path, CONFIGURATION.encode())
    return path


def tell_story(url: str, key: str, directory: Path = DIRECTORY) -> None:
    """Send every record of the story, in order of time, batch by batch; once, however often the demo is started.

    When it was begun stands in ``directory/story``, before the first record is sent: a start that was cut short is
    followed by one that sends the same ids again, which the server stores once.
    """
    path = directory / "story"
    progress = _read_progress(path)
    if progress.is_told:
        return
    replace_file(path, msgspec.json.encode(progress))
    with Client(url, key) as client:
        for tenant in ("northwind", "globex"):
            _make_tenant(client, tenant)
        for source, records in groupby(tell(progress.now), key=lambda record: record.source):
            _send(client, source, list(records))
    replace_file(path, msgspec.json.encode(_Progress(progress.now, is_told=True)))


class _Progress(msgspec.Struct):
    now: datetime
    is_told: bool = False


def _read_progress(path: Path) -> _Progress:
    if not path.exists():
        return _Progress(datetime.now(UTC))
    return msgspec.json.decode(path.read_bytes(), type=_Progress)


def _make_tenant(client: Client, name: str) -> None:
    try:
        client.post("/v1/tenants", {"name": name})
    except ProblemError as error:
        if error.status != 409:  # it is there already: an earlier start made it
            raise


def _send(client: Client, source: str, records: list[Told]) -> None:
    encoder = msgspec.json.Encoder()
    if source == "events":
        body = encoder.encode_lines(
            [{"tenant": told.tenant, "id": f"demo-{told.at:%Y%m%d%H%M%S%f}", **told.record} for told in records]
        )
        path = "/v1/events"
    else:
        body = encoder.encode_lines([told.record for told in records])
        path = f"/v1/in/{source}"
    client.request("POST", path, content=body, headers={"Content-Type": "application/x-ndjson"}, is_repeatable=True)
