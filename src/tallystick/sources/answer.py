"""The body of a 200 to a sender: counts, what was quarantined, ids made here, and a receipt per tenant (DESIGN section 5)."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import UNSET, UnsetType

from tallystick.event.times import format_utc
from tallystick.evidence.origin import event_origin
from tallystick.evidence.receipt import Receipt, batch_root, input_root, receipt_key_name, sign_receipt
from tallystick.sources.submission import Bad, EventResult, Outcome, TenantOutcome

_encode = msgspec.json.Encoder().encode


class QuarantinedLine(msgspec.Struct):
    """One record that was kept in the quarantine, and the place in it that was at fault."""

    line: int
    code: str
    message: str
    pointer: str = ""


class ReceiptBody(msgspec.Struct):
    """Where one tenant's events are in its log."""

    log: str
    ranges: Sequence[Sequence[int]]
    batch_root: str
    received_at: str
    durability: str = "fsynced"
    signed: str | UnsetType = UNSET


class AnswerBody(msgspec.Struct):
    """The whole answer."""

    accepted: int
    duplicates: int
    filtered: int
    quarantined: list[QuarantinedLine]
    receipts: list[ReceiptBody]
    ids: list[str] | UnsetType = UNSET
    results: list[EventResult] | UnsetType = UNSET


@dataclass(frozen=True, slots=True)
class ReceiptSigner:
    """Makes receipts of one server. ``include_by_s`` is the promised time until an event is in its tree, in seconds."""

    server_name: str
    key: Ed25519PrivateKey
    include_by_s: float

    def receipt(self, outcome: Outcome, tenant: TenantOutcome, *, is_signed: bool) -> ReceiptBody:
        """One tenant's receipt, as a signed note in addition when asked for."""
        root = batch_root(tenant.leaf_hashes)
        body = ReceiptBody(
            event_origin(self.server_name, tenant.handle), tenant.ranges, base64.b64encode(root).decode(), outcome.received_at
        )
        if is_signed:
            include_by = datetime.fromisoformat(outcome.received_at) + timedelta(seconds=self.include_by_s)
            receipt = Receipt(
                body.log,
                tuple((first, count) for first, count in tenant.ranges),
                root,
                input_root([record.strip() for record in tenant.records()]),
                outcome.received_at,
                format_utc(include_by),
            )
            body.signed = sign_receipt(receipt, receipt_key_name(self.server_name), self.key)
        return body


def encode_answer(outcome: Outcome, signer: ReceiptSigner, *, is_signed: bool) -> bytes:
    """The JSON body of the answer."""
    for result in outcome.results:
        if result.log:
            result.log = event_origin(signer.server_name, result.log)
    return _encode(
        AnswerBody(
            outcome.accepted,
            outcome.duplicates,
            outcome.filtered,
            quarantined_lines(outcome.bad),
            [signer.receipt(outcome, tenant, is_signed=is_signed) for tenant in outcome.tenants if tenant.ranges],
            outcome.made_ids or UNSET,
            outcome.results or UNSET,
        )
    )


def quarantined_lines(bad: Sequence[Bad]) -> list[QuarantinedLine]:
    """Bad records as the answer names them."""
    return [QuarantinedLine(one.line, one.error.code, one.error.message, one.error.pointer) for one in bad]
