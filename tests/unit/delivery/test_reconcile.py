"""Reading back: how bodies become records again, and where a walk may go on. The whole way: tests/integration/test_reconcile.py."""

from __future__ import annotations

import gzip

import pytest
import zstandard

from tallystick.delivery.reconcile import _records
from tallystick.delivery.walk import read_place
from tallystick.errors import TerminalError

LINES = b'{"a":1}\n{"b":2}\n'


@pytest.mark.parametrize(
    ("body", "suffix"),
    [
        (LINES, ".jsonl"),
        (zstandard.compress(LINES), ".jsonl.zst"),
        (zstandard.compress(LINES[:8]) + zstandard.compress(LINES[8:]), ".jsonl.zst"),
        (gzip.compress(LINES, mtime=0), ".jsonl.gz"),
    ],
    ids=["plain", "zstd", "two frames of zstd", "gzip"],
)
def test_records_come_back(body: bytes, suffix: str) -> None:
    """Plain, zstd (several frames too) and gzip."""
    assert _records(body, suffix, 1 << 20) == [b'{"a":1}', b'{"b":2}']


@pytest.mark.parametrize(
    ("body", "suffix"),
    [
        (b"no line end", ".jsonl"),
        (b"no frame\n", ".jsonl.zst"),
        (b"no frame\n", ".jsonl.gz"),
        (zstandard.compress(bytes(1 << 22)), ".jsonl.zst"),
        (gzip.compress(bytes(1 << 22), mtime=0), ".jsonl.gz"),
        (zstandard.compress(LINES)[:-4], ".jsonl.zst"),
    ],
    ids=["no line end", "no zstd", "no gzip", "a bomb of zstd", "a bomb of gzip", "half a frame"],
)
def test_what_has_no_records_is_no_fault_of_ours(body: bytes, suffix: str) -> None:
    """Damage, a bomb, half a frame: the finding then names the whole batch."""
    assert _records(body, suffix, 1 << 20) is None


@pytest.mark.parametrize("text", ["", "{", "5", '["x"]', '[null,"h",5]', '[["h",false,99999999999999999999,0]]', '[["h",0],"",""]'])
def test_a_walk_goes_on_only_where_a_page_ended(text: str) -> None:
    """Anything else is refused with what to give."""
    with pytest.raises(TerminalError, match="after"):
        read_place(text)
