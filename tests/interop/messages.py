"""The messages of gRPC's public interop tests (`grpc.testing`), built when this is imported.

Field numbers are those of the public messages.proto. Enums are declared as int32, which is the same
on the wire; fields of tests that need Google's cloud are left out.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "grpc.testing"

_FIELDS: dict[str, dict[str, tuple[int, str]]] = {
    "Empty": {},
    "BoolValue": {"value": (1, "bool")},
    "Payload": {"type": (1, "int32"), "body": (2, "bytes")},
    "EchoStatus": {"code": (1, "int32"), "message": (2, "string")},
    "SimpleRequest": {
        "response_type": (1, "int32"),
        "response_size": (2, "int32"),
        "payload": (3, "Payload"),
        "response_compressed": (6, "BoolValue"),
        "response_status": (7, "EchoStatus"),
        "expect_compressed": (8, "BoolValue"),
        "fill_server_id": (9, "bool"),
    },
    "SimpleResponse": {"payload": (1, "Payload"), "server_id": (4, "string")},
    "StreamingInputCallRequest": {"payload": (1, "Payload"), "expect_compressed": (2, "BoolValue")},
    "StreamingInputCallResponse": {"aggregated_payload_size": (1, "int32")},
    "ResponseParameters": {
        "size": (1, "int32"),
        "interval_us": (2, "int32"),
        "compressed": (3, "BoolValue"),
    },
    "StreamingOutputCallRequest": {
        "response_type": (1, "int32"),
        "response_parameters": (2, "repeated ResponseParameters"),
        "payload": (3, "Payload"),
        "response_status": (7, "EchoStatus"),
    },
    "StreamingOutputCallResponse": {"payload": (1, "Payload")},
}
"""Message -> field -> (number, type)."""


def _file() -> descriptor_pb2.FileDescriptorProto:
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="tests/interop/messages.proto", package=PACKAGE, syntax="proto3"
    )
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for field_name, (number, described) in fields.items():
            kind = described.removeprefix("repeated ")
            field = message.field.add(name=field_name, number=number)
            many = described.startswith("repeated ")
            field.label = kinds.LABEL_REPEATED if many else kinds.LABEL_OPTIONAL
            if kind in _FIELDS:
                field.type, field.type_name = kinds.TYPE_MESSAGE, f".{PACKAGE}.{kind}"
            else:
                field.type = kinds.Type.Value(f"TYPE_{kind.upper()}")
    return file


_pool = descriptor_pool.DescriptorPool()
_pool.Add(_file())  # type: ignore[no-untyped-call]


def _class(name: str) -> Any:
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))


Empty = _class("Empty")
Payload = _class("Payload")
SimpleRequest = _class("SimpleRequest")
SimpleResponse = _class("SimpleResponse")
StreamingInputCallRequest = _class("StreamingInputCallRequest")
StreamingInputCallResponse = _class("StreamingInputCallResponse")
StreamingOutputCallRequest = _class("StreamingOutputCallRequest")
StreamingOutputCallResponse = _class("StreamingOutputCallResponse")
