"""Access keys: who may send, read and operate over HTTP.

A secret is ``ts_<id>_<43 base62 characters>`` (256 random bits), shown once. Stored is only its SHA-256, which suffices for a
random secret. `KEYS/access.{a,b}` is a StateFile with JSON ``{"v":1,"keys":[…]}`` (docs/formats/state-files.md).

Rules

1. One process writes (the api; the supervisor at start, before there is one). Others look at the files every half second,
   and before they refuse: a revoked key is known everywhere within a second, a new one at once.
2. The key is found by its id and the hashes are compared in constant time; an unknown id is compared with a hash too, so
   that it costs the same. Unknown, wrong and revoked are one answer.
3. When the register becomes unreadable the keys known so far stay in force and nothing changes any more; a process that starts
   then refuses.
4. The time of last use is kept by each process for itself (`access-use-<role>.json`, volatile) and merged when keys are listed.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from threading import RLock

import msgspec

from tallystick.durable import StateFile, make_dir, replace_file, replace_volatile
from tallystick.errors import ConfigError, IntegrityError, NotFoundError
from tallystick.http.problem import Problem
from tallystick.telemetry import log

PERMISSIONS = ("ingest", "read", "open", "verify", "operate", "keys", "approve")

_ALPHABET = string.digits + string.ascii_letters
_SECRET = re.compile(r"ts_([0-9A-Za-z]{4,32})_[0-9A-Za-z]{43}")
_LOOK_INTERVAL_S = 0.5
_USE_INTERVAL_S = 30.0
_ADMIN_LIFE_S = 24 * 3600.0
_ADMIN_OWNER = "admin"
_VERIFIED_MAX = 4096
_NO_HASH = hashlib.sha256(b"no such key").hexdigest()


class AuthError(Problem):
    """401: no usable key came with the request. ``key_id`` is the id that it named, empty when there was none."""

    def __init__(self, code: str, detail: str, key_id: str = "") -> None:
        super().__init__(401, code, detail, headers={"www-authenticate": 'Bearer realm="tallystick"'})
        self.key_id = key_id


class AccessKey(msgspec.Struct, frozen=True, kw_only=True):
    """One key without its secret. Times are Unix seconds. ``tenants`` empty: bound to none, so it may use every one."""

    id: str
    secret_hash: str
    owner: str
    purpose: str
    tenants: tuple[str, ...]
    permissions: tuple[str, ...]
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None
    last_used_at: float | None = None

    def may(self, permission: str) -> bool:
        """True when the key has exactly this permission; none implies another."""
        return permission in self.permissions

    def sees(self, tenant: str) -> bool:
        """True when the key may be used for this tenant."""
        return not self.tenants or tenant in self.tenants

    def is_live(self, now: float) -> bool:
        """True when neither revoked nor expired at ``now`` (Unix seconds)."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


class _Register(msgspec.Struct):
    v: int
    keys: list[AccessKey]


class AccessKeys:
    """All access keys of one installation. ``role`` names this process in the record of last uses. Thread-safe."""

    def __init__(self, keys_dir: Path, role: str = "api") -> None:
        """Raises IntegrityError when the register is there but unreadable."""
        self._dir = keys_dir
        self._state = StateFile(keys_dir / "access")
        self._slots = [keys_dir / f"access.{slot}" for slot in "ab"]
        self._use_path = keys_dir / f"access-use-{role}.json"
        self._lock = RLock()
        self._keys: dict[str, AccessKey] = {}
        self._seen: list[tuple[int, int, int] | None] = []
        self._looked_at = 0.0
        self._verified: dict[bytes, AccessKey] = {}
        self._used: dict[str, float] = self._read_uses(self._use_path)
        self._uses_saved_at = 0.0
        self._reload()

    def verify(self, header_value: str | bytes | None) -> AccessKey:
        """The live key in an Authorization header's value. Raises AuthError; see rule 2."""
        if not header_value:
            raise AuthError("unauthenticated", "this needs an access key: Authorization: Bearer ts_…")
        text = header_value.decode("latin-1") if isinstance(header_value, bytes) else header_value
        scheme, _, secret = text.partition(" ")
        match = _SECRET.fullmatch(secret.strip())
        if scheme.lower() != "bearer" or match is None:
            raise AuthError("key_invalid", "the Authorization header has no access key of the form: Bearer ts_<id>_<secret>")
        key = self._check(match[1], secret.strip())
        if isinstance(header_value, bytes):
            if len(self._verified) >= _VERIFIED_MAX:
                self._verified.clear()
            self._verified[hashlib.sha256(header_value).digest()] = key
        return key

    def verify_again(self, header_value: bytes) -> AccessKey | None:
        """The live key in a value that `verify` took since the register was last read, at a fraction of the cost; else None.

        Of the values only digests are kept. What is remembered is forgotten at every look at the files that finds a change, and
        each time the key is asked for its expiry: rule 1 holds.
        """
        self._look()
        key = self._verified.get(hashlib.sha256(header_value).digest())
        now = time.time()
        if key is None or not key.is_live(now):
            return None
        self._note_use(key.id, now)
        return key

    def live(self, key_id: str) -> AccessKey | None:
        """The key of that id while it may still be used: for sessions and open connections, asked again every few seconds."""
        self._look()
        key = self._keys.get(key_id)
        return key if key is not None and key.is_live(time.time()) else None

    def create(
        self,
        owner: str,
        purpose: str,
        tenants: Iterable[str],
        permissions: Iterable[str],
        expires_at: datetime | float | None = None,
    ) -> tuple[AccessKey, str]:
        """Make a key durably; returns it and its secret, which cannot be had again. Raises ConfigError, OSError."""
        return self._create(_new_secret(), owner, purpose, tenants, permissions, expires_at)

    def revoke(self, key_id: str) -> AccessKey:
        """Revoke a key durably; twice is no error. Raises NotFoundError."""
        with self._lock:
            self._reload()
            key = self._keys.get(key_id)
            if key is None:
                raise NotFoundError("no such key", place=key_id)
            if key.revoked_at is None:
                key = msgspec.structs.replace(key, revoked_at=time.time())
                self._save({**self._keys, key_id: key})
            return key

    def list(self) -> list[AccessKey]:
        """Every key, oldest first, with its last use as all processes know it."""
        with self._lock:
            self._reload()
            uses = [self._used, *(self._read_uses(path) for path in self._dir.glob("access-use-*.json") if path != self._use_path)]
            return [msgspec.structs.replace(key, last_used_at=_latest(key.id, uses)) for key in self._keys.values()]

    def _check(self, key_id: str, secret: str) -> AccessKey:
        self._look()
        # One that is not known may have been made a moment ago, by another process.
        key = self._find(key_id, secret)
        if key is None:
            self._look(is_due=True)
            key = self._find(key_id, secret)
        if key is None or key.revoked_at is not None:
            raise AuthError("key_invalid", "no such access key", key_id)
        now = time.time()
        if not key.is_live(now):
            raise AuthError("key_expired", "this access key has expired", key_id)
        self._note_use(key_id, now)
        return key

    def _find(self, key_id: str, secret: str) -> AccessKey | None:
        key = self._keys.get(key_id)
        is_right = hmac.compare_digest(_hash(secret), key.secret_hash if key is not None else _NO_HASH)
        return key if is_right else None

    def _create(
        self,
        secret: str,
        owner: str,
        purpose: str,
        tenants: Iterable[str],
        permissions: Iterable[str],
        expires_at: datetime | float | None,
    ) -> tuple[AccessKey, str]:
        wanted = set(permissions)
        if unknown := wanted - set(PERMISSIONS):
            raise ConfigError(f"unknown permission: {', '.join(sorted(unknown))}", hint=f"Known are {', '.join(PERMISSIONS)}")
        key = AccessKey(
            id=secret.split("_")[1],
            secret_hash=_hash(secret),
            owner=owner,
            purpose=purpose,
            tenants=tuple(tenants),
            permissions=tuple(name for name in PERMISSIONS if name in wanted),
            created_at=time.time(),
            expires_at=expires_at.timestamp() if isinstance(expires_at, datetime) else expires_at,
        )
        with self._lock:
            self._reload()
            self._save({**self._keys, key.id: key})
        return key, secret

    def _save(self, keys: dict[str, AccessKey]) -> None:
        # Twice: a start that fell back to an older slot must neither lose a key nor revive a revoked one. A crash between
        # the two leaves the newer slot, and an answer that nobody got.
        payload = msgspec.json.encode(_Register(1, list(keys.values())))
        make_dir(self._dir)
        self._state.save(payload)
        self._state.save(payload)
        self._keys = keys
        self._verified.clear()

    def _look(self, *, is_due: bool = False) -> None:
        now = time.monotonic()
        if not is_due and now - self._looked_at < _LOOK_INTERVAL_S:
            return
        self._looked_at = now
        if [_stamp(path) for path in self._slots] != self._seen:
            try:
                self._reload()
            except IntegrityError as error:
                log.error("access_register_unreadable", error=str(error))

    def _reload(self) -> None:
        with self._lock:
            self._verified.clear()
            self._seen = [_stamp(path) for path in self._slots]
            payload = self._state.load()
            if payload is not None:
                self._keys = {key.id: key for key in msgspec.json.decode(payload, type=_Register).keys}
            elif self._state.is_damaged():
                raise IntegrityError(
                    "the register of access keys is damaged",
                    place=str(self._state.path),
                    hint="Restore the key directory, or remove access.a and access.b to begin with a new admin key",
                )

    def _note_use(self, key_id: str, now: float) -> None:
        self._used[key_id] = now
        if now - self._uses_saved_at > _USE_INTERVAL_S:
            self._save_uses(now)

    def _save_uses(self, now: float) -> None:
        self._uses_saved_at = now
        try:
            replace_volatile(self._use_path, msgspec.json.encode(self._used))
        except OSError as error:
            log.warning("last_uses_not_saved", error=str(error))

    def _read_uses(self, path: Path) -> dict[str, float]:
        try:
            return msgspec.json.decode(path.read_bytes(), type=dict[str, float])
        except (FileNotFoundError, msgspec.DecodeError):
            return {}


@dataclass(frozen=True, slots=True)
class AdminKey:
    """The admin key of a start: its id and secret when its file still holds a live one, and that file."""

    key_id: str | None = None
    secret: str | None = None
    path: Path | None = None


def ensure_admin_key(keys_dir: Path, given: str | None) -> AdminKey:
    """See to it that somebody can administer: called at each start, before the api process runs.

    ``given`` (TALLYSTICK_ADMIN_KEY) is taken as the admin key, without expiry, in place of one given before. Without it a key
    is made when no live key bound to no tenant may manage keys; it expires in 24 hours. Either is in `KEYS/admin.key`, 0600.
    Raises ConfigError when ``given`` is no access key, IntegrityError, OSError.
    """
    make_dir(keys_dir)
    access = AccessKeys(keys_dir, "start")
    path = keys_dir / "admin.key"
    if given:
        return _take_given(access, path, given.strip())
    now = time.time()
    if not any(key.is_live(now) and key.may("keys") and not key.tenants for key in access.list()):
        secret = _new_secret()
        # The file first: a crash after it leaves a secret that opens nothing, the other way round a key that nobody knows.
        replace_file(path, secret.encode() + b"\n")
        access._create(secret, _ADMIN_OWNER, "first administration", (), PERMISSIONS, now + _ADMIN_LIFE_S)
    return _read_admin(access, path)


def _take_given(access: AccessKeys, path: Path, given: str) -> AdminKey:
    match = _SECRET.fullmatch(given)
    if match is None:
        raise ConfigError(
            "TALLYSTICK_ADMIN_KEY is no access key", hint="It must read ts_<4 to 32 letters or digits>_<43 letters or digits>"
        )
    known = {key.id: key for key in access.list()}
    for key in known.values():
        if key.owner == _ADMIN_OWNER and key.revoked_at is None and key.secret_hash != _hash(given):
            access.revoke(key.id)
    found = known.get(match[1])
    if found is None or found.secret_hash != _hash(given) or found.revoked_at is not None:
        replace_file(path, given.encode() + b"\n")
        access._create(given, _ADMIN_OWNER, "given by TALLYSTICK_ADMIN_KEY", (), PERMISSIONS, None)
    return _read_admin(access, path)


def _read_admin(access: AccessKeys, path: Path) -> AdminKey:
    try:
        secret = path.read_text("ascii").strip()
        key = access.verify(f"Bearer {secret}")
    except (FileNotFoundError, UnicodeDecodeError, AuthError):
        return AdminKey()
    return AdminKey(key.id, secret, path)


def _new_secret() -> str:
    key_id = "".join(secrets.choice(_ALPHABET) for _ in range(12))
    return f"ts_{key_id}_" + "".join(secrets.choice(_ALPHABET) for _ in range(43))


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _latest(key_id: str, uses: Iterable[dict[str, float]]) -> float | None:
    return max((used[key_id] for used in uses if key_id in used), default=None)
