"""Whether a file is one that the register knows: told by its first bytes and by those before the place read last."""

from __future__ import annotations

from pathlib import Path

from tallystick.sources.file.names import is_rotated_name
from tallystick.sources.file.register import HEAD_BYTES, Entry, digest
from tallystick.sources.file.stream import ByteStream


class Sample:
    """The beginning of one open file. Raises DamagedFileError and OSError as its stream does."""

    def __init__(self, stream: ByteStream) -> None:
        self.stream = stream
        self.first = stream.read(HEAD_BYTES)

    def begins(self, entry: Entry) -> bool:
        """Whether the file has the entry's head."""
        size = entry.head_size
        return size > 0 and len(self.first) >= size and digest(self.first[:size]) == entry.head

    def begins_as(self, other: ByteStream) -> bool:
        """Whether it begins as an open plain file does: a copy of it, perhaps one that is still being made."""
        return len(self.first) > 0 and other.peek(0, len(self.first)) == self.first

    def continues(self, entry: Entry) -> bool:
        """Whether it has the entry's tail."""
        start, end = entry.tail_end - entry.tail_size, entry.tail_end
        if not entry.tail_size:
            return True
        if end <= len(self.first):
            return digest(self.first[start:end]) == entry.tail
        if not self.stream.is_compressed:
            return digest(self.stream.peek(start, entry.tail_size)) == entry.tail
        other = ByteStream(self.stream.path)
        try:
            other.skip_to(start)
            return digest(other.read(entry.tail_size)) == entry.tail
        finally:
            other.close()

    def may_be_copy(self, entry: Entry) -> bool:
        """Whether the name, or the length of the head, lets the file be one that was known under another inode."""
        return entry.head_size >= HEAD_BYTES or is_rotated_name(self.stream.path, Path(entry.path))
