"""gRPC reflection, `v1alpha` and `v1`, as calls of the handler table.

Both are answered by grpcio-reflection's own servicer: the two protocols differ in their package
name alone, so one message class reads and writes both.
"""

from collections.abc import AsyncIterator, Iterable
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.message import Message
from grpc_reflection.v1alpha import reflection as _typed_reflection
from grpc_reflection.v1alpha import reflection_pb2

from server.handlers import CallContext, Method

ALPHA = "grpc.reflection.v1alpha"
STABLE = "grpc.reflection.v1"
SERVICES = tuple(f"{package}.ServerReflection" for package in (ALPHA, STABLE))

reflection: Any = _typed_reflection
"""Untyped: the published stubs do not know its asyncio servicer."""


def reflection_methods(services: Iterable[str]) -> list[Method]:
    """The calls, telling of these services and of themselves."""
    _describe_stable()
    servicer = reflection.aio.ReflectionServicer([*services, *SERVICES])

    def tell(requests: AsyncIterator[Any], context: CallContext) -> AsyncIterator[Message]:
        answers: AsyncIterator[Message] = servicer.ServerReflectionInfo(requests, context)
        return answers

    request = reflection_pb2.ServerReflectionRequest
    return [
        Method(path=f"/{service}/ServerReflectionInfo", request=request, bidi=tell)
        for service in SERVICES
    ]


def _describe_stable() -> None:
    """Make `v1` known to the pool, so that it can be described as all others: grpcio-reflection
    brings the description of `v1alpha` only."""
    pool = descriptor_pool.Default()
    try:
        pool.FindFileContainingSymbol(SERVICES[1])
    except KeyError:
        file = descriptor_pb2.FileDescriptorProto()
        reflection_pb2.DESCRIPTOR.CopyToProto(file)
        file.name = file.name.replace("v1alpha", "v1")
        file.package = STABLE
        for message in file.message_type:
            for field in message.field:
                if field.type_name:
                    field.type_name = field.type_name.replace(ALPHA, STABLE)
        for method in file.service[0].method:
            method.input_type = method.input_type.replace(ALPHA, STABLE)
            method.output_type = method.output_type.replace(ALPHA, STABLE)
        pool.AddSerializedFile(file.SerializeToString())
