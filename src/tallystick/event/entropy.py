"""Random bytes for salts and ids without a system call each.

``os.urandom`` gives up the interpreter lock; with a busy commit thread beside it, getting the lock back costs far more than the
bytes. So they are fetched for many uses at once and handed out in pieces, each once. `deque.pop` is one step, so any thread
may ask. What is in the pool is not secret: it ends in canonical lines.
"""

from __future__ import annotations

import os
from collections import deque

PIECE = 16
_PIECES = 512
_pool: deque[bytes] = deque()


def random_piece() -> bytes:
    """16 random bytes that nobody else gets."""
    while True:
        try:
            return _pool.pop()
        except IndexError:
            data = os.urandom(PIECE * _PIECES)
            _pool.extend(data[at : at + PIECE] for at in range(0, len(data), PIECE))
