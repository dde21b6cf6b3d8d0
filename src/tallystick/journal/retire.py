"""Deleting segments that nobody needs any more.

A segment goes when every named cursor, and dedupe's, has passed all of its entries, and it is neither the active one nor the
one at which `cursors/numbering` starts. Cursors are durable before this is asked, so the order is persist, then unlink; a crash
in between leaves a segment that the next call removes. Cursors that cannot be read hold everything.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from tallystick.durable import unlink
from tallystick.journal.cursor import Cursor
from tallystick.journal.numbering import NumberingFile
from tallystick.journal.segment import list_segments

DEDUPE_CURSOR = "dedupe"


def retire_segments(data_dir: Path, needed_by: Iterable[str]) -> list[str]:
    """Unlink what every cursor in ``needed_by`` has passed; returns the names of the removed files, oldest first. Raises OSError."""
    numbering = NumberingFile(data_dir).load()
    positions = [Cursor(data_dir, name).load() for name in {*needed_by, DEDUPE_CURSOR}]
    if numbering is None or not all(positions):
        return []
    reading = {position.segment for position in positions if position is not None}
    seq = min(position.seq for position in positions if position is not None)
    segments = list_segments(data_dir / "journal").segments
    removed = []
    for (path, header), (_, following) in pairwise(segments):
        if header.uuid in reading or header.uuid == numbering[0] or following.first_seq > seq:
            break
        unlink(path)
        removed.append(path.name)
    return removed
