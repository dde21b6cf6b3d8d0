"""The error tree, sorted by what the caller should do.

    TallystickError                      every error of ours
    ├── ConfigError                      fix the configuration or the command line (exit 2)
    ├── StartError                       the data or key directory cannot be used (exit 3)
    │   ├── LockedError                  another process holds the role
    │   ├── KeysMissingError             data without its keys
    │   └── FormatRefusedError           written by a newer major format
    ├── TransientError                   try again, later
    │   ├── PushbackError                slow down: 429/503 with Retry-After at the edge
    │   │   ├── OverloadedError          a bounded queue is full
    │   │   ├── QuotaExceededError       a key or a tenant sends more than its quota
    │   │   ├── DiskFullError            quota, high-water mark or ENOSPC
    │   │   └── NotAcceptingError        intake has stopped until the disk takes writes again
    │   ├── OutcomeUnknownError          the writer ended before it answered: stored or not, nobody can say
    │   ├── DestinationUnavailableError  the other side is down
    │   └── UnreadableError              the disk does not give its bytes now; they may still be there
    ├── TerminalError                    the same input will fail again
    │   ├── EventInvalidError            input is no event: where, and what to do
    │   │   └── EventTooLargeError       canonical lines over the limit, by their place in the batch
    │   ├── ConflictError                same id, other content
    │   ├── EventRejectedError           a destination refused this event for good
    │   ├── QueryError                   a query that cannot be understood
    │   └── NotFoundError                nothing under that name, for this caller
    ├── BatchError                       one outcome per event
    └── IntegrityError                   never retried, never swallowed (exit 4)
        ├── TornFrameError               bytes that are no whole frame
        ├── ProofError                   a proof does not lead to its root
        └── CheckpointError              a head is not what was signed, or not an extension

Every error carries an operation, a place and a hint where one is known, and prints as
``operation: what happened (place). hint``.
"""

from __future__ import annotations

from collections.abc import Sequence


class TallystickError(Exception):
    """Base of every error that Tallystick raises on purpose.

    ``place`` is where it happened (a path and offset, a line, a JSON Pointer); ``hint`` says what to do next.
    """

    code = "error"

    def __init__(self, message: str, *, place: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.place = place
        self.hint = hint

    def __str__(self) -> str:
        text = self.message
        if self.place:
            text += f" ({self.place})"
        if self.hint:
            text += f". {self.hint}"
        return text


class ConfigError(TallystickError):
    """The configuration or command line must be changed."""

    code = "config_invalid"


class StartError(TallystickError):
    """The data or key directory cannot be used; nothing was written."""

    code = "start_refused"


class LockedError(StartError):
    """Another process holds this role on the same data directory."""

    code = "data_locked"


class KeysMissingError(StartError):
    """Data is there but its keys are not, or keys lie where they must not."""

    code = "keys_missing"


class FormatRefusedError(StartError):
    """The directory was written by a newer major format version."""

    code = "format_refused"


class TransientError(TallystickError):
    """Trying again later can succeed."""

    code = "transient"


class PushbackError(TransientError):
    """Slow down. ``retry_after_s`` is the advice for the sender, in seconds."""

    code = "slow_down"

    def __init__(self, message: str, *, retry_after_s: float = 1.0, place: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, place=place, hint=hint)
        self.retry_after_s = retry_after_s


class OverloadedError(PushbackError):
    """A bounded queue is full."""

    code = "overloaded"


class QuotaExceededError(PushbackError):
    """A key or a tenant sends more than its quota; ``retry_after_s`` is when it may send again."""

    code = "quota_exceeded"


class DiskFullError(PushbackError):
    """Quota, high-water mark or the disk itself is reached."""

    code = "disk_full"


class NotAcceptingError(PushbackError):
    """Intake has stopped after a second failed write, until a new segment can be made durable; or it is closing."""

    code = "not_accepting"


class OutcomeUnknownError(TransientError):
    """The writer ended after a request was handed to it and before it answered: the request is stored as a whole, or not at all.

    No status says that, so at the edge the connection is closed without an answer, as when a whole server is killed.
    """

    code = "outcome_unknown"


class DestinationUnavailableError(TransientError):
    """The other side did not answer, or said it is down."""

    code = "destination_unavailable"


class UnreadableError(TransientError):
    """A file of ours cannot be read at the moment. Only after `[journal] read_patience` it counts as damaged."""

    code = "unreadable"


class TerminalError(TallystickError):
    """The same input will fail again."""

    code = "terminal"


class EventInvalidError(TerminalError):
    """A record is not an event. ``line`` counts from 1; ``pointer`` is an RFC 6901 JSON Pointer."""

    code = "event_invalid"

    def __init__(self, message: str, *, line: int = 1, pointer: str = "", code: str | None = None) -> None:
        super().__init__(message, place=f"line {line}, {pointer or 'whole record'}")
        self.line = line
        self.pointer = pointer
        if code:
            self.code = code


class EventTooLargeError(EventInvalidError):
    """Canonical lines over the limit. ``positions`` are their 0-based places in the batch."""

    code = "event_too_large"

    def __init__(self, message: str, *, positions: list[int]) -> None:
        super().__init__(message, line=positions[0] + 1)
        self.positions = positions


class ConflictError(TerminalError):
    """An id was used before with other content. ``positions`` are the (batch, position) of the events, both 0-based."""

    code = "id_conflict"

    def __init__(self, message: str, *, positions: Sequence[tuple[int, int]] = ()) -> None:
        super().__init__(message)
        self.positions = positions


class EventRejectedError(TerminalError):
    """A destination refused this event for good."""

    code = "event_rejected"


class QueryError(TerminalError):
    """A query that cannot be understood; ``hint`` shows a form that can."""

    code = "query_invalid"


class NotFoundError(TerminalError):
    """Nothing under that name that this caller may see."""

    code = "not_found"


class BatchError(TallystickError):
    """A batch ended with one outcome per event; see the subclass or ``outcomes``."""

    code = "batch_partial"


class IntegrityError(TallystickError):
    """Evidence does not hold. Never retried and never swallowed."""

    code = "integrity"


class TornFrameError(IntegrityError):
    """Bytes that are no whole journal frame."""

    code = "torn_frame"


class ProofError(IntegrityError):
    """A proof does not lead to the root it claims."""

    code = "proof_invalid"


class CheckpointError(IntegrityError):
    """A head is not validly signed, or is no extension of one seen before."""

    code = "checkpoint_invalid"
