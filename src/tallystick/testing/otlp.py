"""A receiver that answers as an OTLP/HTTP endpoint for logs does, in Protobuf, partial successes included.

Dials beside those of `Receiver`: ``judge`` gives the reason why a record is refused; ``token`` is the bearer token to show.
"""

from __future__ import annotations

from collections.abc import Callable

from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from tallystick.testing.receiver import Receiver, Request, Said

_PROTOBUF = {"content-type": "application/x-protobuf"}


class OtlpReceiver(Receiver):
    """``records`` are those taken, ``requests_read`` the whole requests as messages."""

    def __init__(self) -> None:
        super().__init__()
        self.judge: Callable[[LogRecord], str] = lambda record: ""
        self.token = ""
        self.records: list[LogRecord] = []
        self.requests_read: list[ExportLogsServiceRequest] = []

    def answer(self, request: Request) -> Said:
        if self.token and request.headers.get("authorization") != f"Bearer {self.token}":
            return _status(401, 16, "no token")
        if request.path != "/v1/logs" or request.method != "POST":
            return Said(404)
        if request.headers.get("content-type") != "application/x-protobuf":
            return _status(415, 3, "unsupported media type")
        try:
            message = ExportLogsServiceRequest.FromString(request.body)
        except DecodeError as error:
            return _status(400, 3, str(error))
        self.requests_read.append(message)
        response = ExportLogsServiceResponse()
        for record in (record for logs in message.resource_logs for scope in logs.scope_logs for record in scope.log_records):
            reason = self.judge(record)
            if reason:
                response.partial_success.rejected_log_records += 1
                response.partial_success.error_message = reason
            else:
                self.records.append(record)
        return Said(200, bytes(response.SerializeToString()), _PROTOBUF)


def _status(http: int, code: int, text: str) -> Said:
    return Said(http, bytes(Status(code=code, message=text).SerializeToString()), _PROTOBUF)
