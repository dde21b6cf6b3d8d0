"""What an OTLP server answers: ExportLogsServiceResponse, or google.rpc.Status, in the encoding of the request.

A client must not send again after a success, partial or not, nor after an error that is not retryable; 429 and 503 are
retryable over HTTP, RESOURCE_EXHAUSTED and UNAVAILABLE over gRPC when a RetryInfo comes with them.
"""

from __future__ import annotations

import msgspec
from google.protobuf.any_pb2 import Any
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

PROTOBUF = b"application/x-protobuf"
JSON = b"application/json"

_CODES = {
    400: 3,  # INVALID_ARGUMENT
    401: 16,  # UNAUTHENTICATED
    403: 7,  # PERMISSION_DENIED
    404: 5,  # NOT_FOUND
    405: 12,  # UNIMPLEMENTED
    408: 4,  # DEADLINE_EXCEEDED
    409: 6,  # ALREADY_EXISTS
    413: 8,  # RESOURCE_EXHAUSTED
    415: 3,
    421: 3,
    422: 3,
    429: 8,
    500: 13,  # INTERNAL
    503: 14,  # UNAVAILABLE
}
_UNKNOWN = 2


def status_code(http_status: int) -> int:
    """The google.rpc.Code that says the same as an HTTP status."""
    return _CODES.get(http_status, _UNKNOWN)


def encode_success(media: bytes, rejected: int, message: str) -> bytes:
    """The answer to a request that is durable. ``rejected``: records that became no events; ``message`` says why."""
    if media == JSON:
        if not rejected and not message:
            return b"{}"
        return msgspec.json.encode({"partialSuccess": {"rejectedLogRecords": str(rejected), "errorMessage": message}})
    response = ExportLogsServiceResponse()
    if rejected or message:
        response.partial_success.rejected_log_records = rejected
        response.partial_success.error_message = message
    return bytes(response.SerializeToString())


def encode_status(media: bytes, code: int, message: str, retry_after_s: int | None = None) -> bytes:
    """A google.rpc.Status; with ``retry_after_s`` it has a RetryInfo."""
    if media == JSON:
        body: dict[str, object] = {"code": code, "message": message}
        if retry_after_s is not None:
            body["details"] = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{retry_after_s}s"}]
        return msgspec.json.encode(body)
    status = Status(code=code, message=message)
    if retry_after_s is not None:
        info = RetryInfo()
        info.retry_delay.seconds = retry_after_s
        detail = Any()
        detail.Pack(info)
        status.details.append(detail)
    return bytes(status.SerializeToString())
