"""Threat lists: addresses, networks, domains and hashes that one wants to be told of, each until it expires.

Nothing is taken away from a list when an indicator expires: the list knows when the next one will, and answers what was remembered
are good until then.
"""

from __future__ import annotations

import copy
from bisect import bisect_right
from collections.abc import Iterator
from datetime import UTC, datetime
from math import inf
from typing import Any, NamedTuple

from tallystick.transforms.enrich.dataset import BadFileError, Content, DataSet
from tallystick.transforms.enrich.indicators import Kind, names_above, read_indicator, read_value
from tallystick.transforms.enrich.lookup import DATASET
from tallystick.transforms.enrich.networks import Address, Network, NetworkTable
from tallystick.transforms.enrich.rows import read_rows, text_of
from tallystick.transforms.enrich.settings import EnrichSettings, ThreatSettings


class Indicator(NamedTuple):
    """One line of a list, as it is written there. ``expires``: Unix seconds; infinite: never."""

    text: str
    kind: Kind
    note: str | None
    expires: float


class ThreatList(DataSet):
    """One file. Of an indicator that is there twice, the one counts that expires later."""

    def __init__(self, content: Content, settings: ThreatSettings, limits: EnrichSettings) -> None:
        super().__init__(settings.name or content.path.stem, content.date)
        known: dict[Network | str, Indicator] = {}
        for line, text, note, expires in _lines(content, settings, limits):
            read = read_indicator(text)
            if read is None:
                raise BadFileError(f"line {line}: {text[:100]!r} is no address, network, domain or hash")
            kind, key = read
            before = known.get(key)
            if before is None or before.expires < expires:
                known[key] = Indicator(text, kind, note, expires)
        self._networks: NetworkTable[Indicator] = NetworkTable()
        self._texts = {key: one for key, one in known.items() if isinstance(key, str)}
        for key, one in known.items():
            if not isinstance(key, str):
                self._networks.put(key, one)
        self._ends = sorted({one.expires for one in known.values()})
        self._now = -inf
        self.until = -inf

    def at(self, now: float) -> ThreatList:
        """The list as it is from ``now`` to the next time that an indicator expires."""
        found = copy.copy(self)
        after = bisect_right(self._ends, now)
        found._now = now
        found.until = self._ends[after] if after < len(self._ends) else inf
        return found

    def find(self, value: str) -> list[dict[str, Any]] | None:
        """The hits: every network that holds the address, every domain that the name is in, the hash."""
        read = read_value(value)
        if read is None:
            return None
        hits = [self._hit(one) for one in self._matching(*read) if one.expires > self._now]
        return hits or None

    def _matching(self, kind: Kind, value: Address | str) -> Iterator[Indicator]:
        if not isinstance(value, str):
            yield from self._networks.holding(value)
            return
        for name in names_above(value) if kind == "domain" else (value,):
            if name in self._texts:
                yield self._texts[name]

    def _hit(self, one: Indicator) -> dict[str, Any]:
        found: dict[str, Any] = {"indicator": one.text, "type": one.kind}
        if one.note:
            found["note"] = one.note
        if one.expires < inf:
            found["expires"] = datetime.fromtimestamp(one.expires, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {**found, DATASET: self.facts}


def _lines(content: Content, settings: ThreatSettings, limits: EnrichSettings) -> Iterator[tuple[int, str, str | None, float]]:
    """Line, indicator, note and expiry of each."""
    default = inf if settings.expire_after is None else content.changed + settings.expire_after.seconds
    if not settings.column:
        for line, text in enumerate(text_of(content.data).splitlines(), 1):
            text = text.partition("#")[0].strip()
            if line > limits.rows_max:
                raise BadFileError(f"line {line}: there are more than the {limits.rows_max} rows of `rows_max`")
            if text:
                yield line, text, None, default
        return
    wanted = [settings.column, settings.note or settings.column, settings.expires or settings.column]
    for line, (text, note, expires) in read_rows(content, wanted, limits.rows_max, limits.file_max.bytes):
        if text is not None:
            end = _time(expires, line) if settings.expires and expires is not None else default
            yield line, str(text).strip(), str(note) if settings.note and note is not None else None, end


def _time(value: Any, line: int) -> float:
    """Unix seconds of an RFC 3339 time, a date, a time of Parquet's, or a number of seconds. Without a zone it is UTC."""
    try:
        if isinstance(value, datetime):
            found = value
        elif str(value).strip().isdigit():
            found = datetime.fromtimestamp(int(value), UTC)
        else:
            found = datetime.fromisoformat(str(value).strip())
        return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError, OSError) as error:
        raise BadFileError(f"line {line}: {str(value)[:100]!r} is no time") from error
