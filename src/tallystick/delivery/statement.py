"""Issues signed statements and hands delivery receipts over: what the pipeline says about its own deliveries.

Per destination, every ``statement_interval``, for each tenant whose account changed since the last one: a note over all sealed
events from index 0, signed, stored (``cursors/statements-<destination>``) and then put into the tenant's account tree. A crash after the
store hands the same note over again; one before it issues another a little later.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tallystick.delivery.account import Account
from tallystick.durable import StateFile, make_dir
from tallystick.evidence.origin import event_origin
from tallystick.evidence.statement import Statement, sign_statement, statement_key_name


class Issued(msgspec.Struct):
    """The last statement of one tenant. ``counts`` are what it was made of: a change asks for the next."""

    tenant: str
    note: str
    counts: tuple[int, int, int, int, int]
    is_posted: bool = False

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.note.encode()).hexdigest()


class StatementBook:
    """One destination's last statements, by handle."""

    def __init__(self, data_dir: Path, destination: str) -> None:
        make_dir(data_dir / "cursors")
        self.destination = destination
        self._file = StateFile(data_dir / "cursors" / f"statements-{destination}")
        payload = self._file.load()
        self.issued: dict[str, Issued] = {} if payload is None else msgspec.msgpack.decode(payload, type=dict[str, Issued])

    def issue(
        self, accounts: dict[str, Account], sizes: dict[str, int], as_of: int, server_name: str, key: Ed25519PrivateKey
    ) -> int:
        """Sign and store a statement for each tenant whose numbers changed; returns how many. Raises OSError, CheckpointError."""
        count = 0
        for handle, account in accounts.items():
            sealed = sizes.get(handle, 0)
            dead, filtered = sum(account.dead_lettered.values()), sum(account.filtered.values())
            counts = (sealed, account.delivered, filtered, dead, account.revision)
            last = self.issued.get(handle)
            if sealed == 0 or (last is not None and last.counts == counts):
                continue
            statement = make_statement(self.destination, account, sealed, as_of, event_origin(server_name, handle))
            note = sign_statement(statement, statement_key_name(server_name), key)
            self.issued[handle] = Issued(account.tenant, note, counts)
            count += 1
        if count:
            self.save()
        return count

    def unposted(self) -> list[Issued]:
        """Statements that are not in an account tree yet, as far as it is known here."""
        return [issued for issued in self.issued.values() if not issued.is_posted]

    def save(self) -> None:
        """Durable when it returns. Raises OSError."""
        self._file.save(msgspec.msgpack.encode(self.issued))


def make_statement(destination: str, account: Account, sealed: int, as_of: int, origin: str) -> Statement:
    """The statement over all ``sealed`` events of an account, at least one."""
    return Statement(
        origin=origin,
        destination=destination,
        first=0,
        last=sealed - 1,
        as_of=as_of,
        revision=account.revision,
        issued=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        delivered=account.delivered,
        pending=account.pending(sealed),
        filtered=dict(account.filtered),
        dead_lettered=dict(account.dead_lettered),
    )


def read_statements(data_dir: Path, destination: str) -> dict[str, str]:
    """The last signed statement of each tenant at a destination, by handle, for readers in other processes."""
    payload = StateFile(data_dir / "cursors" / f"statements-{destination}").load()
    issued = {} if payload is None else msgspec.msgpack.decode(payload, type=dict[str, Issued])
    return {handle: entry.note for handle, entry in issued.items()}
