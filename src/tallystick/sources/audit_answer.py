"""What the audit door answers: the draft's receipts and refusals, always in JSON.

    one record       {"record_id","status","integrity_hash","sink_timestamp","verify_status","sink_status_map", …}
    several          {"batch_id","status","record_status_map":{<record id>: as above},"sink_status_aggregate", …}

and what the draft has not: `log` and `index` say where in the log a record is, `receipts` holds the receipt of each tenant with a
signed note (docs/formats/receipts.md). A refusal has `status` and `reason`, `retry_after` where it is worth while, and
the records at fault where there are some; nothing of the request was stored then.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from tallystick.event.entropy import random_piece
from tallystick.evidence.origin import event_origin
from tallystick.http.problem import Problem
from tallystick.sources.answer import ReceiptSigner
from tallystick.sources.asgi import Reply, Scope
from tallystick.sources.audit_batch import VERIFY_FAILED, AuditBatch
from tallystick.sources.submission import Bad, Draft, EventResult, Outcome

SINK = "tallystick"
DELIVERED = "delivered_all_sinks"
SCHEMA_INVALID = "rejected_schema_invalid"
CONFLICT = "rejected_conflict"
_STATUSES = {
    401: "rejected_authz",
    403: "rejected_authz",
    429: "unavailable",
    500: "failed_internal",
    503: "unavailable",
}

_encode = msgspec.json.Encoder().encode


class AuditProblem(Problem):
    """A refusal with ``body``, in the draft's words."""

    def __init__(self, status: int, code: str, detail: str, body: dict[str, Any]) -> None:
        super().__init__(status, code, detail)
        self.body_members = body

    @classmethod
    def of_faults(cls, bad: Sequence[Bad], batch: AuditBatch) -> AuditProblem:
        """400: some records are none, or their proofs do not fit."""
        at_fault = [
            (
                batch.ids.get(item.line) or f"#{item.line}",
                f"rejected_{item.error.code}",
                f"record {item.line}: {item.error.message}",
            )
            if item.error.code == VERIFY_FAILED
            else (batch.ids.get(item.line) or f"#{item.line}", SCHEMA_INVALID, f"record {item.line}: {item.error.message}")
            for item in bad
        ]
        return cls._of(400, "records_rejected", at_fault, len(batch.ids) + sum(item.line not in batch.ids for item in bad))

    @classmethod
    def of_conflicts(cls, lines: Iterable[int], batch: AuditBatch) -> AuditProblem:
        """409: ids that are there with other content."""
        at_fault = [
            (batch.ids.get(line, f"#{line}"), CONFLICT, f"record {line}: its id was used before with other content")
            for line in lines
        ]
        return cls._of(409, "id_conflict", at_fault, len(batch.ids))

    @classmethod
    def _of(cls, status: int, code: str, at_fault: list[tuple[str, str, str]], count: int) -> AuditProblem:
        name, word, reason = at_fault[0]
        if count == 1:
            return cls(status, code, reason, {"record_id": name, "status": word, "reason": reason, **_verdict(word)})
        records = {name: {"record_id": name, "status": word, "reason": reason, **_verdict(word)} for name, word, reason in at_fault}
        reason = f"{len(at_fault)} of {count} records were rejected, so nothing was stored"
        return cls(status, code, reason, {"status": word, "reason": reason, "record_status_map": records})


def _verdict(status: str) -> dict[str, str]:
    return {"verify_status": "failed"} if status == f"rejected_{VERIFY_FAILED}" else {}


def refuse(problem: Problem, scope: Scope, request_id: str) -> Reply:
    """A problem in the draft's words."""
    if isinstance(problem, AuditProblem):
        return Reply(problem.status, _encode(problem.body_members))
    body: dict[str, Any] = {"status": _STATUSES.get(problem.status, SCHEMA_INVALID), "reason": f"{problem.detail} ({problem.code})"}
    retry_after = problem.headers.get("retry-after")
    if retry_after is not None:
        body["retry_after"] = int(retry_after)
    return Reply(problem.status, _encode(body))


@dataclass(frozen=True, slots=True)
class Receipts:
    """Makes the answers of one server."""

    signer: ReceiptSigner

    def encode(self, batch: AuditBatch, draft: Draft, outcome: Outcome, now_s: float) -> bytes:
        """The body of a 200. ``now_s``: seconds since 1970, after the commit."""
        results = {result.line: result for result in outcome.results}
        records = [self._record(batch, number, results[line], now_s) for number, line in enumerate(batch.lines)]
        for number, event in enumerate(batch.events):
            if event.ingest and event.ingest.redactions:
                records[number]["reason"] = f"{len(event.ingest.redactions)} values were redacted before it was stored"
        signed = [self.signer.receipt(outcome, tenant, is_signed=True) for tenant in outcome.tenants if tenant.ranges]
        if len(records) == 1:
            return _encode({**records[0], "receipts": signed})
        return _encode(
            {
                "batch_id": random_piece().hex(),
                "status": DELIVERED,
                "record_status_map": {record["record_id"]: record for record in records},
                "sink_status_aggregate": "success",
                "receipts": signed,
            }
        )

    def _record(self, batch: AuditBatch, number: int, result: EventResult, now_s: float) -> dict[str, Any]:
        verdict, flags = batch.verdicts[number], batch.chain_flags[number]
        record: dict[str, Any] = {
            "record_id": batch.audits[number].id,
            "status": DELIVERED,
            "integrity_hash": batch.hashes[number],
            "sink_timestamp": str(int(now_s * 1_000_000) * 1_000),
            "verify_status": verdict.status,
            "sink_status_map": {SINK: {"delivery_status": "success"}},
        }
        reasons = [*flags, *([verdict.reason] if verdict.reason else [])]
        if result.outcome == "filtered":
            reasons.append(f"filtered by {result.filter}")
        else:
            record |= {"log": event_origin(self.signer.server_name, result.log), "index": result.index}
        if reasons:
            record["reason"] = "; ".join(reasons)
        return record
