"""The query engine over archive and hot part."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import msgspec
import pytest

from tallystick.config import Duration, Size
from tallystick.errors import IntegrityError, NotFoundError, QueryError
from tallystick.query.evaluate import compile_query
from tallystick.query.request import Page, SearchRequest
from unit.query.installation import Installation, Make, make_line, make_lines


def ask(installation: Installation, query: str = "", **options: object) -> Page:
    return installation.engine.search(SearchRequest(tenants=("acme",), query=query, **options))  # type: ignore[arg-type]


def expected(
    installation: Installation, query: str = "", tenants: tuple[str, ...] = ("acme",), *, newest_first: bool = True
) -> list[bytes]:
    """What a search must give: every sent line that matches, sorted by time, index and handle."""
    matches = compile_query(query)
    rows = [
        (event["occurred_at"], index, installation.tenant(name).handle, line)
        for name in tenants
        for index, line in enumerate(installation.sent[name])
        if matches(event := msgspec.json.decode(line))
    ]
    return [row[-1] for row in sorted(rows, key=lambda row: row[:3], reverse=newest_first)]


QUERIES = [
    "",
    "actor:u_3",
    "action:role.* outcome:denied",
    "metadata.n:[10 TO 40]",
    '"note 17 of"',
    "NOT metadata.n:5",
    "ip:10.0.2.0/24 many",
    "target:r_1",
]


async def spread(installation: Installation, count: int = 120) -> None:
    """Events in two chunks and a hot part, their times not in order of arrival."""
    lines = make_lines(count)
    random.Random(7).shuffle(lines)
    await installation.append(lines[: count // 3])
    installation.archive()
    await installation.append(lines[count // 3 : 2 * count // 3])
    installation.archive()
    await installation.append(lines[2 * count // 3 :])


@pytest.mark.parametrize("query", QUERIES)
async def test_search_sees_archive_and_hot_part_as_one(installation: Installation, query: str) -> None:
    """Newest first and oldest first give every match once, whether archived or not."""
    await spread(installation)
    assert ask(installation, query, limit=1000).events == expected(installation, query)
    assert ask(installation, query, limit=1000, order="asc").events == expected(installation, query, newest_first=False)
    assert installation.engine.count(SearchRequest(tenants=("acme",), query=query)).total == len(expected(installation, query))


@pytest.mark.parametrize("order", ["desc", "asc"])
@pytest.mark.parametrize("query", ["", "metadata.n:*", "actor:u_3 OR outcome:denied"])
async def test_pages_join_without_holes_or_repeats(installation: Installation, query: str, order: str) -> None:
    """Pages of a few events, turned to the end, are the one long page."""
    await spread(installation)
    found: list[bytes] = []
    page = ask(installation, query, limit=7, order=order)
    while True:
        found += page.events
        assert len(page.events) == 7 or page.next is None
        if page.next is None:
            break
        page = ask(installation, query, limit=7, order=order, cursor=page.next)
    assert found == expected(installation, query, newest_first=order == "desc")


async def test_a_cursor_holds_its_snapshot(installation: Installation) -> None:
    """Events that arrive, or are archived, between two pages change neither."""
    await spread(installation)
    whole = expected(installation)
    first = ask(installation, limit=50)
    await installation.append(make_lines(20, start=30))
    installation.archive()
    second = ask(installation, limit=1000, cursor=first.next)
    assert first.events + second.events == whole
    assert len(ask(installation, limit=1000).events) == len(whole) + 20


async def test_equal_times_are_settled_by_index(installation: Installation) -> None:
    """A page may end amid events of one instant."""
    await installation.append([make_line(n, occurred_at="2026-09-14T09:00:00.000000Z") for n in range(9)])
    installation.archive()
    await installation.append([make_line(n, occurred_at="2026-09-14T09:00:00.000000Z") for n in range(9, 15)])
    indexes: list[int] = []
    cursor = None
    while True:
        page = ask(installation, limit=4, cursor=cursor)
        indexes += page.indexes
        cursor = page.next
        if cursor is None:
            break
    assert indexes == list(range(14, -1, -1))


@pytest.mark.parametrize("change", ["flip", "cut", "empty", "text", "tenant", "query", "order"])
async def test_a_cursor_is_refused_elsewhere(installation: Installation, change: str) -> None:
    """A changed cursor, or one of another search or tenant, is an error of the caller."""
    await spread(installation)
    installation.tenant("other")
    cursor = ask(installation, limit=5).next
    assert cursor is not None
    request = {"tenants": ("acme",), "query": "", "order": "desc", "cursor": cursor}
    match change:
        case "flip":
            request["cursor"] = cursor[:30] + ("A" if cursor[30] != "A" else "B") + cursor[31:]
        case "cut":
            request["cursor"] = cursor[:-3]
        case "empty":
            request["cursor"] = "AAAA"
        case "text":
            request["cursor"] = "ü no base64!"
        case "tenant":
            request["tenants"] = ("other",)
        case "query":
            request["query"] = "actor:u_1"
        case "order":
            request["order"] = "asc"
    with pytest.raises(QueryError) as caught:
        installation.engine.search(SearchRequest(**request))  # type: ignore[arg-type]
    assert caught.value.place == "cursor"


async def test_time_range_is_half_open(installation: Installation) -> None:
    """``start`` is inclusive, ``end`` exclusive, on occurred_at or received_at."""
    await spread(installation)
    start, end = datetime(2026, 9, 14, 8, 0, 10, tzinfo=UTC), datetime(2026, 9, 14, 8, 0, 20, tzinfo=UTC)
    found = ask(installation, start=start, end=end, order="asc")
    assert [msgspec.json.decode(line)["metadata"]["n"] for line in found.events] == list(range(10, 20))
    at = datetime(2026, 9, 14, 10, tzinfo=UTC)
    assert len(ask(installation, time="received_at", start=at, limit=1000).events) == 120
    assert ask(installation, time="received_at", end=at).events == []


async def test_several_tenants_in_one_search(installation: Installation) -> None:
    """Events of several tenants come in one order; a term on tenant tells them apart; nobody else's appear."""
    await installation.append(make_lines(30))
    await installation.append(make_lines(30, start=10, tenant="beta"), "beta")
    installation.archive()
    await installation.append(make_lines(10, start=60, tenant="beta"), "beta")
    await installation.append(make_lines(10), "gamma")
    request = SearchRequest(tenants=("acme", "beta"), limit=15)
    found: list[bytes] = []
    while True:
        page = installation.engine.search(request)
        found += page.events
        if page.next is None:
            break
        request = SearchRequest(tenants=("beta", "acme"), limit=15, cursor=page.next)
    assert found == expected(installation, tenants=("acme", "beta"))
    beta = installation.engine.search(SearchRequest(tenants=("acme", "beta"), query="tenant:b*", limit=100))
    assert beta.tenants == ["beta"] * 40
    with pytest.raises(NotFoundError):
        installation.engine.search(SearchRequest(tenants=("acme", "nobody")))


async def test_histogram(installation: Installation) -> None:
    """Buckets have a round width, no gaps, and count every match by outcome."""
    await spread(installation)
    found = installation.engine.histogram(SearchRequest(tenants=("acme",)), buckets=30)
    assert found.width_s == 5
    assert [bucket.at for bucket in found.buckets] == [datetime(2026, 9, 14, 8, n // 12, n % 12 * 5, tzinfo=UTC) for n in range(24)]
    assert all(bucket.counts == {"denied": 1, "success": 4} for bucket in found.buckets)
    assert found.total == 120
    start, end = datetime(2026, 9, 14, 7, 59, tzinfo=UTC), datetime(2026, 9, 14, 8, 3, tzinfo=UTC)
    ranged = installation.engine.histogram(SearchRequest(tenants=("acme",), query="metadata.n:7", start=start, end=end), buckets=5)
    assert [bucket.counts for bucket in ranged.buckets] == [{}, {"success": 1}, {}, {}]


async def test_facets(installation: Installation) -> None:
    """Counts of values, highest first; lists count each element; an event without outcome counts as unknown."""
    await spread(installation)
    await installation.append([make_line(0, outcome=None, targets=[{"type": "x", "id": "r_0"}, {"type": "y", "id": "z"}])])
    found = installation.engine.facets(SearchRequest(tenants=("acme",)), ["outcome", "target", "targets.type", "actor"], top=2)
    assert found.values["outcome"] == [("success", 96), ("denied", 24)]
    assert found.values["target"] == [("r_0", 41), ("r_1", 40)]
    assert found.values["targets.type"] == [("role", 120), ("x", 1)]
    assert found.total == 121
    unknown = installation.engine.facets(SearchRequest(tenants=("acme",), query="outcome:unknown"), ["outcome"])
    assert unknown.values == {"outcome": [("unknown", 1)]}
    with pytest.raises(QueryError, match="not counted"):
        installation.engine.facets(SearchRequest(tenants=("acme",)), ["metadata.n"])


async def test_find_lines_and_entries(installation: Installation) -> None:
    """One event by id with its numbers, and lines by index, from archive and hot part."""
    await spread(installation)
    sent = installation.sent["acme"]
    for place in (0, 50, 119):
        name = msgspec.json.decode(sent[place])["id"]
        found = installation.engine.find("acme", name)
        assert found is not None
        assert (found.index, found.seq, found.line) == (place, place + 1, sent[place])
    assert installation.engine.find("acme", "nothing") is None
    assert installation.engine.lines("acme", 30, 60) == list(enumerate(sent))[30:90]
    assert installation.engine.lines("acme", 118, 60) == list(enumerate(sent))[118:]
    assert installation.engine.entries("acme", 70, 50) == sent[70:120]
    with pytest.raises(NotFoundError):
        installation.engine.entries("acme", 110, 11)


async def test_time_limit_makes_an_answer_partial(make_installation: Make) -> None:
    """When time runs out the answer says so, everywhere."""
    installation = make_installation(query={"time": Duration("0s")})
    await spread(installation)
    page = ask(installation)
    assert (page.events, page.next, page.partial) == ([], None, True)
    request = SearchRequest(tenants=("acme",))
    assert installation.engine.count(request).partial
    assert installation.engine.histogram(request).partial
    assert installation.engine.facets(request).partial


async def test_the_hot_part_is_bounded(make_installation: Make) -> None:
    """Past ``hot_bytes`` lines are read from the journal for each query: every event is still found, in order."""
    installation = make_installation(archive={"hot_bytes": Size("4KiB")})
    await installation.append(make_lines(40))
    assert len(ask(installation, limit=100).events) == 40
    await installation.append(make_lines(40, start=40))
    assert ask(installation, limit=100).events == expected(installation)
    assert installation.engine._hot.bytes_held <= 4096
    found = installation.engine.find("acme", "e3")
    assert found is not None
    assert found.index == 3


async def test_a_missing_chunk_is_an_integrity_error(installation: Installation) -> None:
    """A chunk that somebody removed is named, not passed over."""
    await installation.append(make_lines(10))
    installation.archive()
    chunk = next((installation.config.data_dir / "archive").rglob("*.parquet"))
    chunk.unlink()
    with pytest.raises(IntegrityError, match="not in the archive store") as caught:
        ask(installation)
    assert chunk.name in str(caught.value)


async def test_a_damaged_chunk_is_an_integrity_error(installation: Installation) -> None:
    """One flipped bit among the lines of a chunk is found when they are read, and the chunk is named."""
    await installation.append(make_lines(10))
    installation.archive()
    assert len(ask(installation).events) == 10
    row = installation.engine._archive.catalog.chunks(installation.tenant("acme").handle)[0]
    with installation.engine._files.lend(row) as file:
        group = file.metadata.row_group(0)
        lines = next(group.column(n) for n in range(group.num_columns) if group.column(n).path_in_schema == "line")
        middle = lines.data_page_offset + lines.total_compressed_size // 2
    chunk = next((installation.config.data_dir / "archive").rglob("*.parquet"))
    data = bytearray(chunk.read_bytes())
    data[middle] ^= 1
    chunk.write_bytes(data)
    with pytest.raises(IntegrityError) as caught:
        ask(installation)
    assert chunk.name in str(caught.value)
