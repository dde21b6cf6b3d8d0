"""A batch made ready by an intake worker, so that the one writer need not touch a single line of it.

Whatever of a frame does not depend on its number is made in the worker: leaf hashes, digests, and the frame's whole
plaintext (dedupe section and compressed lines, `journal.frame`). When every event of the batch proves to be new, the writer gives it numbers,
encrypts it and writes it as it came. When some are not, it takes the slow way: opens the lines, keeps the new ones and
compresses them again.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

import msgspec
import zstandard

from tallystick.errors import IntegrityError
from tallystick.journal.dedupe_claim import Claim, count_sent, dedupe_section
from tallystick.journal.dedupe_digest import Digester, open_section
from tallystick.journal.entries import TenantBatch
from tallystick.journal.frame import events_payload, split_payload
from tallystick.journal.group import compress_lines

HASH_BYTES: Final = 32


class PackedBatch(msgspec.Struct, array_like=True, gc=False):
    """One tenant's events of one request. ``size``: bytes of their lines; ``payload``: plaintext of the frame that holds all of
    them; ``leaf_hashes``: theirs, joined."""

    handle: str
    count: int
    size: int
    payload: bytes
    leaf_hashes: bytes

    def ids(self) -> tuple[bytes, Sequence[bytes | None], Sequence[bytes | None]]:
        """What dedupe claims: digest of the prefix of ids made in the worker (empty without any), then the digests of ids and of
        contents as in `TenantBatch`. Raises IntegrityError when the parts do not fit one another."""
        if len(self.leaf_hashes) != HASH_BYTES * self.count:
            raise IntegrityError(f"a packed batch of {self.count} events has {len(self.leaf_hashes)} bytes of leaf hashes")
        section, _ = split_payload(self.payload)
        prefix, positions, joined_ids, contents = open_section(section, self.count)
        if len(positions) == self.count:
            return prefix, list(joined_ids), contents
        ids: list[bytes | None] = [None] * self.count
        spread: list[bytes | None] = [None] * self.count
        for place, digest, content in zip(positions, joined_ids, contents, strict=True):
            ids[place], spread[place] = digest, content
        return prefix, ids, spread

    def lines(self) -> list[bytes]:
        """The lines again. Raises IntegrityError when they are not what was announced."""
        _, compressed = split_payload(self.payload)
        try:
            if zstandard.frame_content_size(compressed) != self.size + self.count - 1:
                raise IntegrityError(f"a packed batch is not the {self.size} bytes of lines that it says")
            text = zstandard.ZstdDecompressor().decompress(compressed)
        except zstandard.ZstdError as error:
            raise IntegrityError(f"a packed batch does not open: {error}") from error
        lines = text.split(b"\n")
        if len(lines) != self.count:
            raise IntegrityError(f"a packed batch of {self.count} events holds {len(lines)}")
        return lines


def pack_batch(batch: TenantBatch, digester: Digester, compressor: zstandard.ZstdCompressor) -> tuple[PackedBatch, list[bytes]]:
    """The batch ready for the writer, and its leaf hashes once more as a list, for the answer."""
    hashes = [sha256(b"\0" + line).digest() for line in batch.lines]
    handle = batch.tenant.handle
    prefix = digester.prefix(handle, batch.made_prefix) if batch.made_prefix else b""
    everything = Claim(handle, batch.id_digests, batch.content_digests, prefix, count_sent(batch.id_digests))
    everything.new = list(range(len(batch.lines)))
    payload = events_payload(dedupe_section(everything), compress_lines(batch.lines, compressor))
    packed = PackedBatch(handle, len(batch.lines), sum(map(len, batch.lines)), payload, b"".join(hashes))
    return packed, hashes
