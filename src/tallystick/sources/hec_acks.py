"""Acknowledgement ids of the `hec` source: kept nowhere, and true for exactly those that were given out.

Splunk's clients ask later whether what an id stands for is safe, and send it again when it is not. Here an id is given out after the
events are on disk, so the only question is whether we gave it out, on this channel, to this token. The id says so itself:

    id = serial number (21 bits) << 32 | first 32 bits of HMAC-SHA256(key, token id ‖ 0 ‖ channel ‖ 0 ‖ serial number)

So there is no table to bound, and the answer is the same after a restart or a crash: a client whose events are safe is not told
to send them again. Ids are below 2^53, which every JSON reader keeps exactly. The numbers begin anywhere and go round; what an id
that comes again stands for was durable both times.
"""

from __future__ import annotations

import hmac
import secrets
from hashlib import sha256

_SERIAL_BITS = 21
_CODE_BITS = 32


class AckIds:
    """Gives out and recognises ids. ``key``: 32 secret bytes of this installation."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._serial = secrets.randbits(_SERIAL_BITS)

    def issue(self, credential: str, channel: str) -> int:
        """The next id for a channel of a token, whose events are durable."""
        self._serial = (self._serial + 1) % (1 << _SERIAL_BITS)
        return self._id(credential, channel, self._serial)

    def check(self, credential: str, channel: str, ack: int) -> bool:
        """Whether this id was given out for this channel of this token."""
        serial = ack >> _CODE_BITS
        return 0 <= serial < 1 << _SERIAL_BITS and self._id(credential, channel, serial) == ack

    def _id(self, credential: str, channel: str, serial: int) -> int:
        text = f"{credential}\0{channel}\0{serial}".encode()
        code = int.from_bytes(hmac.digest(self._key, text, sha256)[: _CODE_BITS // 8], "big")
        return serial << _CODE_BITS | code
