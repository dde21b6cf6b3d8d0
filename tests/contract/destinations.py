"""One harness per kind of destination: how to make it, break it, and read back what the other side has."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import obstore
import zstandard
from obstore.store import LocalStore

from support.moto import S3Server
from support.webhook_receiver import SECRET, WebhookReceiver
from tallystick.destinations.file import FileDestination, FileSettings
from tallystick.destinations.object_store import ObjectStoreDestination, ObjectStoreSettings, open_store
from tallystick.destinations.webhook import WebhookDestination, WebhookSettings
from tallystick.durable import set_observer
from tallystick.plugin import Destination
from tallystick.testing.destination import MemoryDestination


class Harness:
    """What a test of the contract needs; ``make`` gives a new instance, as a restart does."""

    kind = ""

    def make(self) -> Destination:
        raise NotImplementedError

    def ids(self) -> list[str]:
        """Event ids that the other side has, in its order."""
        raise NotImplementedError

    def content(self) -> dict[str, Any]:
        """All that the other side holds of each event, by event id. These four: only where single events are read back."""
        raise NotImplementedError

    def remove(self, event_id: str) -> None:
        """Take one event away, as somebody with access to the other side would."""
        raise NotImplementedError

    def alter(self, event_id: str) -> None:
        """Change what one event says there."""
        raise NotImplementedError

    def add_stranger(self) -> list[int]:
        """Put something there that was never sent; the indexes that a walk is to name, none where such things cannot be known."""
        raise NotImplementedError

    @contextmanager
    def broken(self) -> Iterator[Callable[[], Destination]]:
        """While it lasts, sending fails for a passing reason; gives the maker of an instance that meets it."""
        raise NotImplementedError
        yield

    @contextmanager
    def parked(self) -> Iterator[Callable[[], Destination]]:
        """While it lasts, somebody must do something before sending can work."""
        raise NotImplementedError
        yield


@contextmanager
def failing_steps(operation: str, number: int = 5) -> Iterator[None]:
    """Durable steps of this kind fail with an errno (5: EIO)."""

    def observe(step: str, path: Path | None, fd: int) -> None:
        if step == operation:
            raise OSError(number, "injected")

    set_observer(observe)
    try:
        yield
    finally:
        set_observer(None)


class MemoryHarness(Harness):
    kind = "memory"

    def __init__(self) -> None:
        self.destination = MemoryDestination()

    def make(self) -> Destination:
        return self.destination

    def ids(self) -> list[str]:
        return self.destination.ids()

    @contextmanager
    def broken(self) -> Iterator[Callable[[], Destination]]:
        self.destination.is_up = False
        yield self.make
        self.destination.is_up = True

    @contextmanager
    def parked(self) -> Iterator[Callable[[], Destination]]:
        from tallystick.plugin import Answer, AnswerKind

        self.destination.script = [Answer(AnswerKind.PARK, reason="dialled")]
        yield self.make
        self.destination.script = []


class FileHarness(Harness):
    kind = "file"

    def __init__(self, directory: Path) -> None:
        self.path = directory / "out" / "events.jsonl"

    def make(self) -> Destination:
        return FileDestination("disk", FileSettings(path=str(self.path)))

    def ids(self) -> list[str]:
        return [json.loads(line)["id"] for line in self.path.read_bytes().splitlines()]

    @contextmanager
    def broken(self) -> Iterator[Callable[[], Destination]]:
        with failing_steps("sync_data"):
            yield self.make

    @contextmanager
    def parked(self) -> Iterator[Callable[[], Destination]]:
        self.path.mkdir(parents=True)
        yield self.make
        self.path.rmdir()


class ObjectStoreHarness(Harness):
    """A directory, or a bucket at a real S3 server."""

    def __init__(self, url: str, options: dict[str, str] | None = None) -> None:
        self.kind = "s3" if options else "directory"
        self.url = url
        self.options = options or {}

    def settings(self, **changes: Any) -> ObjectStoreSettings:
        return ObjectStoreSettings(**({"url": self.url, "options": self.options} | changes))

    def make(self) -> Destination:
        return ObjectStoreDestination("lake", self.settings())

    def ids(self) -> list[str]:
        store = LocalStore(self.url) if not self.options else open_store(self.settings())
        names = sorted(meta["path"] for batch in obstore.list(store) for meta in batch if meta["path"].endswith(".jsonl.zst"))
        bodies = [zstandard.ZstdDecompressor().decompress(bytes(obstore.get(store, name).bytes())) for name in names]
        return [json.loads(line)["id"] for body in bodies for line in body.splitlines()]

    @contextmanager
    def broken(self) -> Iterator[Callable[[], Destination]]:
        if self.options:
            dead = self.options | {"endpoint": "http://127.0.0.1:9"}
            yield lambda: ObjectStoreDestination("lake", self.settings(options=dead))
        else:
            with failing_steps("link"):
                yield self.make

    @contextmanager
    def parked(self) -> Iterator[Callable[[], Destination]]:
        if self.options:
            yield lambda: ObjectStoreDestination("lake", self.settings(url="s3://no-such-bucket-here"))
        else:
            with failing_steps("link", number=13):
                yield self.make


class WebhookHarness(Harness):
    kind = "webhook"

    def __init__(self, receiver: WebhookReceiver) -> None:
        self.receiver = receiver
        receiver.dial()
        self._seen = len(receiver.state()["deliveries"])

    def settings(self, **changes: Any) -> WebhookSettings:
        return WebhookSettings(**({"url": self.receiver.url, "secret": SECRET, "allow_private": True} | changes))

    def make(self) -> Destination:
        return WebhookDestination("hook", self.settings())

    def deliveries(self) -> list[dict[str, Any]]:
        return self.receiver.state()["deliveries"][self._seen :]

    def ids(self) -> list[str]:
        return [event for delivery in self.deliveries() for event in delivery["events"]]

    @contextmanager
    def broken(self) -> Iterator[Callable[[], Destination]]:
        self.receiver.dial(status=500, times=1_000)
        yield self.make
        self.receiver.dial()

    @contextmanager
    def parked(self) -> Iterator[Callable[[], Destination]]:
        yield lambda: WebhookDestination("hook", self.settings(secret="a wrong secret, long enough"))


def make_harness(kind: str, directory: Path, s3: Callable[[], S3Server], receiver: Callable[[], WebhookReceiver]) -> Harness:
    """The harness of a kind; servers are started when first asked for."""
    if kind == "memory":
        return MemoryHarness()
    if kind == "file":
        return FileHarness(directory)
    if kind == "directory":
        return ObjectStoreHarness(str(directory / "lake"))
    if kind == "s3":
        server = s3()
        return ObjectStoreHarness(f"s3://{server.new_bucket()}/audit", server.options)
    return WebhookHarness(receiver())
