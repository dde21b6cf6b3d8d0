"""Which chunks a query has to open: those whose index, times and value filters leave room for a match.

Pruning is always on the safe side: a chunk is left out only when the catalog shows that no event in it can match.
"""

from __future__ import annotations

from collections.abc import Sequence

from tallystick.archive.catalog import ChunkRow, Window
from tallystick.archive.filters import FilterReader
from tallystick.query.fields import DEFAULTS
from tallystick.query.nodes import And, Equal, Field, Node, Not, Or
from tallystick.query.request import TimeField
from tallystick.query.sql import LIST_COLUMNS, TEXT_COLUMNS
from tallystick.query.values import predicate

_NOTHING = Or(())
_EVERYTHING = And(())
_TENANT = ("tenant",)


def fold_tenant(node: Node, tenant: str) -> Node:
    """The query for the events of one tenant, whose name is known without looking at them."""
    match node:
        case And(items):
            return And(tuple(fold_tenant(item, tenant) for item in items))
        case Or(items):
            return Or(tuple(fold_tenant(item, tenant) for item in items))
        case Not(item):
            return Not(fold_tenant(item, tenant))
        case Field(path, test) if path == _TENANT:
            return _EVERYTHING if predicate(test)(tenant) else _NOTHING
    return node


def window(time: TimeField, start: int | None, end: int | None, index_end: int | None) -> Window:
    """The catalog's window for a range of times (microseconds, ``end`` exclusive) and an index bound."""
    if time == "received_at":
        return Window(end=index_end, received_from=start, received_to=end)
    return Window(end=index_end, occurred_from=start, occurred_to=end)


def prune(rows: Sequence[ChunkRow], node: Node, filters: FilterReader) -> list[ChunkRow]:
    """The rows that may hold a match of ``node``, in the same order."""
    match node:
        case And(items):
            kept = list(rows)
            for item in items:
                kept = prune(kept, item, filters)
            return kept
        case Or(items):
            wanted = {row.chunk_id for item in items for row in prune(rows, item, filters)}
            return [row for row in rows if row.chunk_id in wanted]
        case Field(path, test):
            column = TEXT_COLUMNS.get(path) or LIST_COLUMNS.get(path)
            default = DEFAULTS.get(path)
            if column is None or (default is not None and predicate(test)(default)):
                return list(rows)
            if isinstance(test, Equal):
                return filters.having(rows, column, test.text)
            return filters.matching(rows, column, predicate(test))
    return list(rows)
