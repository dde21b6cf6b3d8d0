"""One stream of records of one API, from poll to poll.

A place is saved only after the events before it are durable. What a crash means:

- between a page's commit and the save: the page is asked for again, and its records, named by the vendor's own key, are merged;
- in the middle of a window: the window is asked for again from its beginning;
- a place that the vendor no longer knows (a 400, a 410) is tried again for ever, with status red: only the operator can say
  whether to begin anew (`docs/sources/pull.md`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import msgspec

from tallystick import durable
from tallystick.durable import StateFile
from tallystick.http.outbound import Reply
from tallystick.plugin import Intake, Record
from tallystick.sources.naming import place_id
from tallystick.sources.pull.caller import Caller, RefusedError, StoppedError
from tallystick.sources.pull.definition import Definition, Request, fill, seconds
from tallystick.sources.pull.pages import PageError, key_of, lasting_place, next_place, records_in, value_at

_MS = 100_000_000_000
"""Numbers beyond that are milliseconds, not seconds."""


class Place(msgspec.Struct, omit_defaults=True):
    """Where a stream goes on: the vendor's cursor (or URL), or the end of the last window; times are Unix seconds."""

    cursor: str = ""
    until: float = 0.0
    looked_late_at: float = 0.0


class Places:
    """The places of all streams of a source, durable. One writer."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file = StateFile(directory / "places")
        payload = self._file.load()
        self.is_lost = payload is None and self._file.is_damaged()
        self._places: dict[str, Place] = msgspec.json.decode(payload, type=dict[str, Place]) if payload is not None else {}

    def get(self, name: str) -> Place:
        return msgspec.structs.replace(self._places.get(name, Place()))

    def save(self, name: str, place: Place) -> None:
        """Durable when it returns. Raises OSError."""
        places = {**self._places, name: place}
        durable.make_dir(self._directory)
        self._file.save(msgspec.json.encode(places))
        self._places = places


@dataclass(slots=True)
class Facts:
    """What status says about one stream. Times are Unix seconds."""

    last_success_at: float | None = None
    newest_at: float | None = None
    failures: int = 0
    reason: str = ""
    next_at: float = 0.0


class Stream:
    """``values`` are the parameters of its requests; ``start_s`` is how far back the first poll looks."""

    def __init__(
        self,
        name: str,
        source: str,
        definition: Definition,
        values: Mapping[str, str],
        caller: Caller,
        places: Places,
        start_s: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self.facts = Facts()
        self._source = source
        self._definition = definition
        self._values = dict(values)
        self._caller = caller
        self._places = places
        self._start_s = min(start_s, seconds(definition.progress.retention))
        self._clock = clock
        self._is_prepared = definition.prepare is None

    async def poll(self, intake: Intake, stop: asyncio.Event) -> bool:
        """Take what is new; True when there is more at once. Raises as `Caller.call` does."""
        if not self._is_prepared:
            await self._prepare(stop)
        if self._definition.progress.by == "cursor":
            return await self._poll_cursor(intake, stop)
        return await self._poll_window(intake, stop)

    # Progress

    async def _poll_cursor(self, intake: Intake, stop: asyncio.Event) -> bool:
        place = self._places.get(self.name)
        values = self._times(self._clock() - self._start_s, self._clock())
        while True:
            reply, url = await self._page(values, place.cursor, stop)
            records = records_in(reply.body, self._definition.page.records)
            await self._take(records, intake, stop)
            following = next_place(self._definition.page, reply, records, url)
            cursor = following or lasting_place(self._definition.page, reply) or place.cursor
            if not place.cursor and self._definition.page.by == "link" and not following:
                return False  # nothing to hold on to yet: the first page is asked for again
            if cursor != place.cursor:
                place.cursor = cursor
                await asyncio.to_thread(self._places.save, self.name, place)
            if following is None or not records:
                return False
            if stop.is_set():
                raise StoppedError

    async def _poll_window(self, intake: Intake, stop: asyncio.Event) -> bool:
        place, progress, now = self._places.get(self.name), self._definition.progress, self._clock()
        start, looks_late = await self._window_start(place, now, intake)
        end = min(now - seconds(progress.delay), start + seconds(progress.longest))
        if end <= start:
            return False
        values, cursor = self._times(start, end), ""
        while True:
            reply, url = await self._page(values, cursor, stop)
            records = records_in(reply.body, self._definition.page.records)
            await self._take(records, intake, stop)
            following = next_place(self._definition.page, reply, records, url)
            if following is None:
                break
            if following == cursor:
                raise PageError("the next page is the page itself")
            cursor = following
            if stop.is_set():
                raise StoppedError
        place.until = max(end, place.until)
        if looks_late:
            place.looked_late_at = now
        await asyncio.to_thread(self._places.save, self.name, place)
        return end < now - seconds(progress.delay) - 1

    async def _window_start(self, place: Place, now: float, intake: Intake) -> tuple[float, bool]:
        """Where the next window begins, and whether it looks back for late records."""
        progress = self._definition.progress
        if not place.until:
            return now - self._start_s, False
        oldest = now - seconds(progress.retention)
        if place.until < oldest:
            facts = {
                "stream": self.name,
                "from": _rfc3339(place.until),
                "to": _rfc3339(oldest),
                "why": "older than the vendor keeps",
            }
            await intake.record_gap(f"{self.name}:{place.until:.0f}"[:100], facts)
            return oldest, False
        late_s = seconds(progress.late)
        looks_late = late_s > 0 and now - place.looked_late_at >= seconds(progress.late_every) and now - place.until < late_s
        back_s = late_s if looks_late and place.looked_late_at else seconds(progress.overlap)
        return max(place.until - back_s, oldest), looks_late

    # Requests

    async def _page(self, values: dict[str, str], cursor: str, stop: asyncio.Event) -> tuple[Reply, str]:
        request, page = self._definition.request, self._definition.page
        if cursor and page.by in ("link", "header"):
            return await self._caller.call(request.method, cursor, b"", self._headers(request, values), stop), cursor
        query = {name: fill(text, values) for name, text in request.query.items()}
        body = _filled(request.body, values)
        if cursor:
            carrier: dict[str, Any] = body if body is not None else query
            for name in page.replaces:
                carrier.pop(name, None)
            carrier[page.parameter] = cursor
        url = self._caller.base + fill(request.path, values) + (f"?{urlencode(query)}" if query else "")
        data = msgspec.json.encode(body) if body is not None else b""
        return await self._caller.call(request.method, url, data, self._headers(request, values), stop), url

    async def _prepare(self, stop: asyncio.Event) -> None:
        """The one request that some APIs want first. ``prepared``: the statuses that say that it was made before."""
        request = self._definition.prepare
        if request is None:
            return
        values = self._values
        query = urlencode({name: fill(text, values) for name, text in request.query.items()})
        url = f"{self._caller.base}{fill(request.path, values)}?{query}"
        try:
            await self._caller.call(request.method, url, b"", self._headers(request, values), stop)
        except RefusedError as error:
            if error.status not in self._definition.prepared:
                raise
        self._is_prepared = True

    def _headers(self, request: Request, values: dict[str, str]) -> dict[str, str]:
        return {name: fill(text, values) for name, text in request.headers.items()}

    def _times(self, start: float, end: float) -> dict[str, str]:
        how = self._definition.progress.time
        return {**self._values, "since": _time_text(start, how), "until": _time_text(end, how)}

    # Records

    async def _take(self, records: list[bytes], intake: Intake, stop: asyncio.Event) -> None:
        """Commit a page; where it lists what is to be fetched, that."""
        if self._definition.fetch is None:
            await self._commit(records, intake)
            return
        for item in records:
            if stop.is_set():
                raise StoppedError
            await self._fetch(msgspec.json.decode(item), intake, stop)

    async def _fetch(self, item: Any, intake: Intake, stop: asyncio.Event) -> None:
        fetch = self._definition.fetch
        url = value_at(item, fetch.url) if fetch else None
        if fetch is None or not isinstance(url, str):
            raise PageError(f"an entry of the list has no {fetch.url if fetch else 'url'}")
        try:
            reply = await self._caller.call("GET", url, b"", {}, stop)
        except RefusedError as error:
            if error.status not in fetch.gone:
                raise
            await intake.record_gap(
                place_id(self.name, "gone", "", url.encode())[:100],
                {"stream": self.name, "why": f"listed, and then {error.status}"},
            )
            return
        await self._commit(records_in(reply.body, fetch.records), intake)

    async def _commit(self, found: list[bytes], intake: Intake) -> None:
        if not found:
            return
        peer, records = urlsplit(self._caller.base).hostname or "", []
        stream = f"{self._source}.{self._definition.name}"
        for line, data in enumerate(found, 1):
            try:
                record = msgspec.json.decode(data)
            except (msgspec.DecodeError, ValueError):
                record = None  # the mapping says what is wrong with it, and quarantines it
            self._note_time(record)
            key = key_of(record, self._definition.key)
            records.append(Record(data, line, peer, place_id(stream, key or "record", "", data)))
        await intake.commit_records(records)

    def _note_time(self, record: Any) -> None:
        when = _moment(value_at(record, self._definition.when)) if self._definition.when else None
        if when is not None and when > (self.facts.newest_at or 0.0):
            self.facts.newest_at = when


def _filled(body: dict[str, Any] | None, values: dict[str, str]) -> dict[str, Any] | None:
    if body is None:
        return None
    return {name: fill(value, values) if isinstance(value, str) else value for name, value in body.items()}


def _rfc3339(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _time_text(moment: float, how: str) -> str:
    """Whole seconds: the start is rounded down, and the end with it, so that windows meet."""
    if how == "unix":
        return str(int(moment))
    return _rfc3339(moment) if how == "rfc3339" else _rfc3339(moment).removesuffix("Z")


def _moment(value: Any) -> float | None:
    """A record's own time in Unix seconds, for lag in status; None when it cannot be told."""
    if isinstance(value, int | float):
        return value / 1000 if value > _MS else float(value)
    try:
        found = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
