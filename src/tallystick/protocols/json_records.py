"""Documents that hold many records, cut into records with bounded memory: the elements of arrays, in a stream of blocks.

A document is an array of records, or an object whose first member `Records` is one, as CloudTrail writes its files:

    {"Records": [{…}, {…}, …]}

Several documents may follow each other. An element's end is found by the JSON decoder itself, tried on what is held: once a block
at most, so a record much larger than a block is refused (``record_max``) before that becomes slow.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator

_HEAD = re.compile(r'\s*(?:\{\s*"Records"\s*:\s*)?\[')
_SURE_HEAD = re.compile(r'\s*(?:\{\s*"Records"\s*:\s*\[|\[\s*(?:\{|\]\s*\Z))')
_HEAD_SIZE = 200
_SPACE = re.compile(r"\s*")

_find_end = json.JSONDecoder().raw_decode


class RecordsError(Exception):
    """The document is not what it should be, from here on; records before were good."""


def is_records(start: bytes) -> bool:
    """Whether what begins so (a few hundred bytes) is one of these, and not text whose lines begin with a bracket."""
    return _SURE_HEAD.match(start.decode("utf-8", "replace").removeprefix("\ufeff")) is not None


class RecordCutter:
    """Feed blocks of one stream, then call ``end``. ``count`` is the number of records that came out."""

    def __init__(self, record_max: int) -> None:
        self.count = 0
        self._record_max = record_max
        self._text = ""
        self._at = 0
        self._where = "outside"
        self._decode = codecs.getincrementaldecoder("utf-8-sig")()

    def feed(self, block: bytes) -> Iterator[bytes]:
        """The records that this block brings to their end; to be taken to the last. Raises RecordsError behind those that were good."""
        self._text, self._at, fault = self._text[self._at :], 0, ""
        try:
            self._text += self._decode.decode(block)
        except UnicodeDecodeError as error:
            self._text += error.object[: error.start].decode()
            fault = f"no UTF-8: {error.reason}"
        while self._at < len(self._text):
            self._at = self._past_space(self._at)
            if self._where == "inside":
                record = self._take_element()
                if record is not None:
                    yield record
                elif self._where == "inside":
                    break
            elif not (self._pass_mark() if self._where == "between" else self._open()):
                break
        if fault:
            raise RecordsError(fault)

    def end(self) -> None:
        """The stream is over. Raises RecordsError when that is within a document."""
        rest = self._text[self._at :].strip()
        if self._where in ("inside", "between"):
            raise RecordsError(f"record {self.count + 1} is no JSON, or the document ends there")
        if rest:
            raise RecordsError("there stands something else than a document of records")

    def _open(self) -> bool:
        """Go on behind an array, to the next one; False when more is needed."""
        if self._where == "behind" and self._text.startswith("}", self._at):
            self._at += 1
            self._where = "outside"
            return True
        head = _HEAD.match(self._text, self._at)
        if head is None:
            if len(self._text) - self._at < _HEAD_SIZE:
                return False
            raise RecordsError("there stands something else than a document of records")
        self._at = head.end()
        self._where = "inside"
        return True

    def _take_element(self) -> bytes | None:
        """The next record; None when more is needed, or when the array is over."""
        if self._text.startswith("]", self._at):
            self._at += 1
            self._where = "behind"
            return None
        try:
            _, end = _find_end(self._text, self._at)
        except RecursionError as error:
            raise RecordsError(f"record {self.count + 1} is too deep") from error
        except ValueError:
            self._wait_for_more()
            return None
        if end == len(self._text) and self._text[self._at] not in '{["':  # a number may go on
            self._wait_for_more()
            return None
        record = self._text[self._at : end].encode("utf-8", "surrogatepass")
        self.count += 1
        self._at, self._where = end, "between"
        return record

    def _pass_mark(self) -> bool:
        """The comma behind an element; the end of the array is for `_take_element`. False when more is needed."""
        mark = self._text[self._at : self._at + 1]
        if mark not in ("", ",", "]"):
            raise RecordsError(f"behind record {self.count} stands {mark!r} in the array")
        self._at += mark == ","
        self._where = "inside" if mark else "between"
        return bool(mark)

    def _wait_for_more(self) -> None:
        if len(self._text) - self._at > self._record_max:
            raise RecordsError(f"record {self.count + 1} is longer than {self._record_max} characters, or no JSON")

    def _past_space(self, at: int) -> int:
        match = _SPACE.match(self._text, at)
        assert match is not None  # the pattern matches nothing, too
        return match.end()
