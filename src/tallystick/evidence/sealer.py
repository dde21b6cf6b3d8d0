"""The sealer: one round per interval turns what the journal holds into signed tree heads.

A round, for all tenants with news together:

1. read the journal up to its durable mark; leaf hashes and account entries are appended to the trees' files (not synced);
2. the roots are computed from the files, checked to extend the last signed heads, and signed;
3. at most every root interval: the root log takes a `checkpoint` entry for each head it does not quote yet (and `key`,
   `config`, `heartbeat` entries), is synced, and is signed;
4. all heads go into ``trees/heads`` as one line, with one fdatasync;
5. a root head goes into the key directory as the remembered head;
6. readers are shown the line.

Once in a while, and at every new segment and stop, the trees are synced and then the cursor is moved: the journal keeps
what lies behind the cursor, so a crash at any step is repaired by reading it again (`growth`, `root_log`, `heads` say
how). Nothing but an extension of what was signed before is ever signed: a mismatch raises CheckpointError and ends the
role, red, with the tree named.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tallystick.config import SealSettings
from tallystick.durable import RoleLock, replace_file, unlink
from tallystick.errors import UnreadableError
from tallystick.evidence.backup_note import backup_key_name
from tallystick.evidence.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from tallystick.evidence.entry import Salter
from tallystick.evidence.growth import Growth
from tallystick.evidence.heads import Head, HeadsFile, HeadState, Round, read_remembered, remember
from tallystick.evidence.manifest import manifest_key_name
from tallystick.evidence.note import vkey
from tallystick.evidence.origin import ROOT, root_origin
from tallystick.evidence.policy import Policy, next_policy, read_policy, time_text
from tallystick.evidence.receipt import receipt_key_name
from tallystick.evidence.root_log import RootLog
from tallystick.evidence.statement import statement_key_name
from tallystick.journal.cursor import Cursor
from tallystick.journal.frame import Frame
from tallystick.journal.reader import JournalReader
from tallystick.telemetry import log, publish_status

RESTORED = "RESTORED"
"""File in the data directory, left by a restore: what the root log has to say of it (JSON), until it has."""

_READ_BYTES = 8 * 2**20
_ROUND_BYTES = 32 * 2**20
_SYNC_LEAVES = 500_000
_SYNC_SECONDS = 60.0
_STATUS_SECONDS = 1.0


class SigningKeys(Protocol):
    """What the sealer needs of `privacy.keys.KeyStore`."""

    def signing_key(self, name: str, *, create: bool = False) -> Ed25519PrivateKey: ...

    def derive(self, purpose: str) -> bytes: ...


@dataclass(frozen=True, slots=True)
class SealerPlace:
    """Where one installation is. ``config_hash`` is the hexadecimal SHA-256 of the configuration in force.

    ``policy`` gives the periods that the configuration wants (None: no policy is published); shorter ones wait ``shorten_delay_s``.
    """

    data_dir: Path
    keys_dir: Path
    server_name: str
    config_hash: str = ""
    policy: Callable[[], Policy] | None = None
    shorten_delay_s: float = 0.0


class Sealer:
    """Seals one data directory; holds the role lock from `start` to `stop`."""

    def __init__(
        self,
        place: SealerPlace,
        keys: SigningKeys,
        settings: SealSettings,
        journal: JournalReader,
        cursor: Cursor,
        *,
        clock: Callable[[], float] = time.time,
        is_suspect: bool = False,
    ) -> None:
        """``is_suspect``: the life before this one ended in a failed write or sync of the signed heads, maybe."""
        self._place = place
        self._keys = keys
        self._settings = settings
        self._journal = journal
        self._cursor = cursor
        self._clock = clock
        self._is_suspect = is_suspect
        self._held = ExitStack()
        self._signers: dict[str, Ed25519PrivateKey] = {}
        self._lock = RoleLock(place.data_dir, "sealer")
        self._salter = Salter(keys.derive("entry-salt"))
        self._growth = Growth(place.data_dir, place.server_name, self._salter)
        self._behind = True
        self._is_restore_said = False
        self._unsigned: set[str] = set()
        self._reason = ""
        self._is_reach_checked = False
        self._leaves_unsynced = 0
        self._last_sync = self._last_root = self._last_heartbeat = 0.0
        self._steps = (0.0, 0.0)

    def start(self) -> None:
        """Take the role and recover. Raises LockedError, IntegrityError, CheckpointError; then nothing was signed.

        1. heads file, 2. root log against its last head and the remembered one, 3. trees back to the cursor's sizes.
        """
        self._lock.acquire()
        self._held.callback(self._lock.release)
        self._held.callback(self._growth.close)
        self._steps = (self._clock(), time.monotonic())
        self._heads = HeadsFile(self._place.data_dir, is_suspect=self._is_suspect)  # 1
        self._held.callback(self._heads.close)
        for damage in self._heads.damaged:
            log.error("a line of the signed heads is damaged", place=f"trees/heads, offset {damage.start}", reason=damage.reason)
        origin = root_origin(self._place.server_name)
        root_key = self._signer(origin)
        self._publish_key(vkey(origin, root_key.public_key()))
        self._root = RootLog(self._place.data_dir, self._place.server_name, root_key, self._salter)  # 2
        self._held.callback(self._root.close)
        note = read_remembered(self._place.keys_dir)
        known = open_checkpoint(note, [vkey(origin, root_key.public_key())]) if note else None
        self._root.recover(self._heads.state.heads.get(ROOT), known)
        index = self._heads.state.policy
        self._policy = read_policy(self._root.entry(index)) if index >= 0 else None
        heads = {name: head for name, head in self._heads.state.heads.items() if name != ROOT}
        position = self._cursor.load()  # 3
        sizes: Mapping[str, int] = self._cursor.extra.get("sizes", {}) if position is not None else {}
        self._growth.recover(sizes, heads)
        # A head may be lost behind the cursor (its line is damaged, the disk lied): signed again in the first round.
        self._unsigned = {name for name, size in sizes.items() if name not in heads or heads[name].size < size}
        self._position = position if position is not None else self._journal.oldest()
        self._synced_position = self._position
        self._last_sync = time.monotonic()
        self._remember()
        self._heads.publish()

    def run(self, should_stop: threading.Event) -> None:
        """Rounds until ``should_stop`` is set, then a last one. Raises IntegrityError, OSError: then only a new sealer may go on."""
        interval = self._settings.interval.seconds
        told = 0.0
        while not should_stop.is_set():
            began = time.monotonic()
            if not self.seal():
                self._journal.wait(self._position, min(interval, 1.0), should_stop)
            if began >= told + _STATUS_SECONDS:
                publish_status(self._place.data_dir, "sealer", self.status())
                told = began
            if not self._behind or self._reason:
                should_stop.wait(max(0.0, began + interval - time.monotonic()))
        self.seal()
        self.stop()

    def stop(self) -> None:
        """Sync, move the cursor, and give the role up."""
        self._save_cursor()
        self.close()

    def close(self) -> None:
        """Give the role up as it is, as a crash would. Harmless when it was given up, or never taken."""
        self._held.close()

    def seal(self) -> bool:
        """One round; True when the journal had news. The numbers are those of the file's head."""
        line = Round(mark=self._journal.mark().seq)
        grown, self._unsigned = self._read() | self._unsigned, set()  # 1
        for name in sorted(grown):
            self._sign(name, line)  # 2
        if self._is_root_due(line):
            self._seal_root(line)  # 3
        if line.heads:
            self._heads.append(line)  # 4
            self._remember()  # 5
            self._heads.publish()  # 6
            self._forget_restore()
        if not self._behind and not grown:
            self._check_reach()
        self._growth.release()
        if self._is_sync_due():
            self._save_cursor()
        return bool(grown)

    def status(self) -> dict[str, Any]:
        """For the status page: sealed sizes by tree, and the root log's size."""
        heads = self._heads.state.heads
        return {
            "sealed": {name: head.size for name, head in heads.items() if name != ROOT},
            "root_size": heads[ROOT].size if ROOT in heads else 0,
            "mark": max((head.mark for head in heads.values()), default=0),
            "damaged_lines": len(self._heads.damaged),
            "reason": self._reason,
        }

    def _read(self) -> set[str]:
        """Step 1. Stops at about ``_ROUND_BYTES``, so that a backlog is sealed piece by piece."""
        grown: set[str] = set()
        taken = 0
        self._behind = True
        while taken < _ROUND_BYTES:
            try:
                items, position = self._journal.read(self._position, max_bytes=_READ_BYTES)
                self._reason = ""
            except UnreadableError as error:
                if not self._reason:
                    log.error("sealing waits", error=str(error))
                self._reason = str(error)  # what was read before is sealed; the rest waits
                break
            if not items and position == self._position:
                self._behind = False
                break
            grown |= self._growth.take(items)
            self._position = position
            self._leaves_unsynced += sum(item.count for item in items if isinstance(item, Frame))
            taken += sum(item.size if isinstance(item, Frame) else item.end - item.start for item in items)
        return grown

    def _sign(self, name: str, line: Round) -> None:
        origin = f"{self._place.server_name}/log/{name}"
        found = self._growth.head(name, self._heads.state.heads.get(name))
        if found is not None:
            line.heads.append(sign_checkpoint(Checkpoint(origin, *found), self._signer(origin)))

    def _is_root_due(self, line: Round) -> bool:
        now = time.monotonic()
        if self._last_root and now < self._last_root + self._settings.root_interval.seconds:
            return False
        is_news = bool(line.heads or self._heads.state.unrooted() or self._new_config() or self._new_policy())
        return is_news or now >= self._last_heartbeat + self._settings.heartbeat.seconds

    def _seal_root(self, line: Round) -> None:
        """Step 3: append to the root log and sign it, into the same line as the heads that it quotes."""
        state = self._heads.state
        fresh = _heads_of(line)
        quoted = [head for head in state.unrooted() if head.origin not in fresh] + list(fresh.values())
        entries = self._own_entries(line, quoted)
        first_quoted = self._root.size + len(entries)
        entries += [("checkpoint", {"origin": head.origin, "mark": head.mark, "note": head.note}) for head in quoted]
        self._root.append(entries)
        prefix = len(f"{self._place.server_name}/log/")
        line.rooted = [(head.origin[prefix:], first_quoted + place) for place, head in enumerate(quoted)]
        line.heads.append(self._root.sign())
        self._last_root = time.monotonic()

    def _own_entries(self, line: Round, quoted: list[Head]) -> list[tuple[str, Mapping[str, Any]]]:
        """`restore`, `config`, `policy`, `key` and `heartbeat` entries that are due; keys come before the first head they signed."""
        entries: list[tuple[str, Mapping[str, Any]]] = []
        at = time_text(self._clock())
        restored = self._place.data_dir / RESTORED
        if restored.exists():
            entries.append(("restore", {"at": at, **msgspec.json.decode(restored.read_bytes())}))
            self._is_restore_said = True
        if self._new_config():
            line.config = self._place.config_hash
            entries.append(("config", {"at": at, "sha256": line.config}))
        policy = self._new_policy()
        if policy is not None:
            self._policy, line.policy = policy, self._root.size + len(entries)
            entries.append(("policy", {"at": at, **msgspec.to_builtins(policy)}))
        server = self._place.server_name
        own = (receipt_key_name(server), manifest_key_name(server), statement_key_name(server), backup_key_name(server))
        names = [*own, *(head.origin for head in quoted)]
        line.keys = [name for name in names if name not in self._heads.state.keys]
        entries += [("key", {"name": name, "vkey": vkey(name, self._signer(name).public_key())}) for name in line.keys]
        if time.monotonic() >= self._last_heartbeat + self._settings.heartbeat.seconds or not self._last_heartbeat:
            wall, monotonic = self._steps
            drift = (self._clock() - wall) - (time.monotonic() - monotonic)
            entries.append(("heartbeat", {"at": at, "clock_offset_ms": round(drift * 1000)}))
            self._last_heartbeat = time.monotonic()
        return entries

    def _new_config(self) -> bool:
        return self._place.config_hash not in ("", self._heads.state.config)

    def _new_policy(self) -> Policy | None:
        """The retention policy in force, when the root log does not say it yet."""
        if self._place.policy is None:
            return None
        found = next_policy(self._policy, self._place.policy(), self._clock(), self._place.shorten_delay_s)
        return None if found == self._policy else found

    def _remember(self) -> None:
        """Step 5, when the root head is a new one."""
        head = self._heads.state.heads.get(ROOT)
        if head is not None and read_remembered(self._place.keys_dir) != head.note:
            remember(self._place.keys_dir, head.note)

    def _forget_restore(self) -> None:
        """Once the `restore` entry is under a signed head. A crash before this says it twice, of the same backup."""
        if self._is_restore_said:
            unlink(self._place.data_dir / RESTORED)
            self._is_restore_said = False

    def _check_reach(self) -> None:
        """Once, when the journal is read to its end: no tree may be shorter than its head."""
        if not self._is_reach_checked:
            self._growth.check_reach(head for name, head in self._heads.state.heads.items() if name != ROOT)
            self._is_reach_checked = True

    def _is_sync_due(self) -> bool:
        if self._position == self._synced_position:
            return False
        return (
            self._leaves_unsynced >= _SYNC_LEAVES
            or time.monotonic() >= self._last_sync + _SYNC_SECONDS
            or self._position.segment != self._synced_position.segment
        )

    def _save_cursor(self) -> None:
        # A crash before the cursor is saved: the trees hold more than it says, and the same leaves are written again.
        self._growth.sync()
        if self._position != self._synced_position:
            self._cursor.save(self._position, {"sizes": self._growth.sizes()})
        self._synced_position = self._position
        self._leaves_unsynced = 0
        self._last_sync = time.monotonic()

    def _signer(self, name: str) -> Ed25519PrivateKey:
        if name not in self._signers:
            self._signers[name] = self._keys.signing_key(name, create=True)
        return self._signers[name]

    def _publish_key(self, text: str) -> None:
        path = self._place.keys_dir / "root.vkey"
        if not path.exists() or path.read_text() != text + "\n":
            # A crash here leaves the old file or none; every start writes it.
            replace_file(path, f"{text}\n".encode(), mode=0o644)


def _heads_of(line: Round) -> dict[str, Head]:
    """The heads in a line, by origin."""
    state = HeadState()
    state.apply(line)
    return {head.origin: head for head in state.heads.values()}
