"""A server's logs in a dictionary: built from entries, signed with keys of its own, and free to lie."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tallystick.errors import NotFoundError, TallystickError
from tallystick.evidence.checkpoint import Checkpoint, sign_checkpoint
from tallystick.evidence.entry import build_entry
from tallystick.evidence.merkle import HASH_BYTES, leaf_hashes, tree_root
from tallystick.evidence.note import vkey
from tallystick.evidence.origin import root_origin
from tallystick.evidence.tile_path import TILE_WIDTH, TileName, tiles_of
from tallystick.evidence.trees import fold_tiles
from tallystick.evidence.verify import Report, ServedEvidence, verify_served

SERVER = "audit.example.com"
URL = "https://audit.example.com"
HANDLE = "abcdefghijklmnop"
ACCOUNT = f"{HANDLE}/account"


def tiles(entries: list[bytes]) -> dict[str, bytes]:
    """Every tile and bundle of a log, by its path below it."""
    levels = [leaf_hashes(entries)]
    while len(levels[-1]) >= TILE_WIDTH * HASH_BYTES:
        whole = len(levels[-1]) // (TILE_WIDTH * HASH_BYTES)
        levels.append(fold_tiles(levels[-1][: whole * TILE_WIDTH * HASH_BYTES]))
    made = {}
    for name in tiles_of(len(entries)):
        start = name.number * TILE_WIDTH
        made[name.path()] = levels[name.level or 0][start * HASH_BYTES : (start + name.width) * HASH_BYTES]
        if name.level == 0:
            bundle = b"".join(struct.pack(">H", len(entry)) + entry for entry in entries[start : start + name.width])
            made[TileName(None, name.number, name.width).path()] = bundle
    return made


class FakeServer:
    """Logs by name, and what a verifier reads of them. ``paths`` may be changed at will."""

    def __init__(self) -> None:
        self.paths: dict[str, bytes | TallystickError] = {}
        self.root_entries: list[bytes] = []
        self.keys: dict[str, Ed25519PrivateKey] = {}
        self.asked = 0

    def key(self, origin: str) -> Ed25519PrivateKey:
        return self.keys.setdefault(origin, Ed25519PrivateKey.generate())

    @property
    def public_key(self) -> str:
        origin = root_origin(SERVER)
        return vkey(origin, self.key(origin).public_key())

    def note(self, name: str, entries: list[bytes]) -> str:
        """A signed head over these entries."""
        origin = f"{SERVER}/log/{name}"
        root = tree_root([leaf_hashes([entry]) for entry in entries])
        return sign_checkpoint(Checkpoint(origin, len(entries), root), self.key(origin))

    def publish(self, name: str, entries: list[bytes]) -> str:
        """Serve a log; returns its head."""
        note = self.note(name, entries)
        self.paths = {
            path: body for path, body in self.paths.items() if not path.startswith((f"/log/{name}/tile", f"/log/{name}/ch"))
        }
        self.paths |= {f"/log/{name}/{path}": body for path, body in tiles(entries).items()}
        self.paths[f"/log/{name}/checkpoint"] = note.encode()
        return note

    def add(self, kind: str, **fields: Any) -> None:
        """An entry of the root log."""
        self.root_entries.append(build_entry(kind, struct.pack(">QQ", 0, len(self.root_entries)), fields))

    def quote(self, name: str, entries: list[bytes]) -> None:
        """Let the root log quote a head over these entries, after the key that signed it."""
        origin = f"{SERVER}/log/{name}"
        if origin not in self.keys:
            self.add("key", name=origin, vkey=vkey(origin, self.key(origin).public_key()))
        self.add("checkpoint", origin=origin, mark=len(entries), note=self.note(name, entries))

    def publish_root(self) -> str:
        return self.publish("root", self.root_entries)

    def fetch(self, paths: Iterable[str]) -> Iterator[bytes | TallystickError]:
        for path in paths:
            self.asked += 1
            yield self.paths.get(path, NotFoundError("no such log"))

    def verify(self, **changes: Any) -> Report:
        given: dict[str, Any] = {"public_key": self.public_key, **changes}
        return verify_served(ServedEvidence(self.fetch, URL, **given))
