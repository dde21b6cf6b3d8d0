"""OTLP's log messages as this code reads them: the same bytes, with other types where the wire does not tell them apart.

On the wire a message inside another is a length and its bytes. So a field that the published schema has as a message can be
read as those bytes, left as they are until somebody looks into them:

    `Request`    as ExportLogsServiceRequest, but each attribute of a record is bytes: most have been seen before
                 (`otlp_values.AttributeReader`), and a message for each would be the larger part of reading a record
    `Records`    the records alone, each as bytes: what was received, for digests and for the quarantine

Messages of OTLP's common and resource packages are the published ones. All live in a pool of their own.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.resource.v1 import resource_pb2

_Field = descriptor_pb2.FieldDescriptorProto
_PACKAGE = "tallystick.otlp_views"
_RECORD = (
    ("time_unix_nano", 1, _Field.TYPE_FIXED64),
    ("severity_number", 2, _Field.TYPE_INT32),
    ("severity_text", 3, _Field.TYPE_STRING),
    ("body", 5, "opentelemetry.proto.common.v1.AnyValue"),
    ("attributes*", 6, _Field.TYPE_BYTES),
    ("dropped_attributes_count", 7, _Field.TYPE_UINT32),
    ("flags", 8, _Field.TYPE_FIXED32),
    ("trace_id", 9, _Field.TYPE_BYTES),
    ("span_id", 10, _Field.TYPE_BYTES),
    ("observed_time_unix_nano", 11, _Field.TYPE_FIXED64),
    ("event_name", 12, _Field.TYPE_STRING),
)
_MESSAGES: dict[str, tuple[tuple[str, int, Any], ...]] = {
    "Request": (("resource_logs*", 1, f"{_PACKAGE}.ResourceLogs"),),
    "ResourceLogs": (
        ("resource", 1, "opentelemetry.proto.resource.v1.Resource"),
        ("scope_logs*", 2, f"{_PACKAGE}.ScopeLogs"),
        ("schema_url", 3, _Field.TYPE_STRING),
    ),
    "ScopeLogs": (
        ("scope", 1, "opentelemetry.proto.common.v1.InstrumentationScope"),
        ("log_records*", 2, f"{_PACKAGE}.Record"),
        ("schema_url", 3, _Field.TYPE_STRING),
    ),
    "Record": _RECORD,
    "Records": (("resource_logs*", 1, f"{_PACKAGE}.ResourceRecords"),),
    "ResourceRecords": (("scope_logs*", 2, f"{_PACKAGE}.ScopeRecords"),),
    "ScopeRecords": (("log_records*", 2, _Field.TYPE_BYTES),),
}
"""Message → its fields: name (repeated with a star), number, type or the name of the message."""


def _build_pool() -> descriptor_pool.DescriptorPool:
    file = descriptor_pb2.FileDescriptorProto(name="tallystick/otlp_views.proto", package=_PACKAGE, syntax="proto3")
    pool = descriptor_pool.DescriptorPool()
    for published in (common_pb2.DESCRIPTOR, resource_pb2.DESCRIPTOR):
        pool.AddSerializedFile(published.serialized_pb)
        file.dependency.append(published.name)
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind in fields:
            label = _Field.LABEL_REPEATED if field.endswith("*") else _Field.LABEL_OPTIONAL
            made = message.field.add(name=field.rstrip("*"), number=number, label=label)
            made.type = _Field.TYPE_MESSAGE if isinstance(kind, str) else kind
            if isinstance(kind, str):
                made.type_name = f".{kind}"
    pool.Add(file)
    return pool


_POOL = _build_pool()
Request: Any = message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{_PACKAGE}.Request"))
Records: Any = message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{_PACKAGE}.Records"))
