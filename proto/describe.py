"""Write docs/grpc-api.md from the comments of the protocol files: ``describe.py DESCRIPTOR_SET OUTPUT``."""

import sys
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)

_HEAD = """# gRPC API

Made from the protocol files in `proto/` by `make docs`; do not edit. Every server speaks mutual TLS 1.3 only and offers
health checking and reflection. Errors are `google.rpc.Status` with an `ErrorInfo` whose `reason` is one of
[errors.md](errors.md) and whose `domain` is `agentfactory`.
"""
_MESSAGES, _ENUMS, _SERVICES, _FIELDS = 4, 5, 6, 2


def _comments(file: FileDescriptorProto) -> dict[tuple[int, ...], str]:
    return {
        tuple(place.path): " ".join(place.leading_comments.split())
        for place in file.source_code_info.location
        if place.leading_comments
    }


def _type_name(field: FieldDescriptorProto) -> str:
    name = (
        field.type_name.rpartition(".")[2]
        if field.type_name
        else FieldDescriptorProto.Type.Name(field.type)[5:].lower()
    )
    return f"repeated {name}" if field.label == FieldDescriptorProto.LABEL_REPEATED else name


def _service(
    service: ServiceDescriptorProto, path: tuple[int, ...], comments: dict[tuple[int, ...], str]
) -> Iterator[str]:
    yield f"\n### {service.name}\n"
    if path in comments:
        yield comments[path] + "\n"
    yield "| Method | Request | Response | |"
    yield "|---|---|---|---|"
    for index, method in enumerate(service.method):
        request = ("stream " if method.client_streaming else "") + method.input_type.rpartition(".")[2]
        response = ("stream " if method.server_streaming else "") + method.output_type.rpartition(".")[2]
        yield f"| `{method.name}` | {request} | {response} | {comments.get((*path, _FIELDS, index), '')} |"


def _message(message: DescriptorProto, path: tuple[int, ...], comments: dict[tuple[int, ...], str]) -> Iterator[str]:
    yield f"\n**{message.name}** {comments.get(path, '')}".rstrip() + "\n"
    for index, field in enumerate(message.field):
        comment = comments.get((*path, _FIELDS, index), "")
        yield f"- `{field.name}` ({_type_name(field)})" + (f": {comment}" if comment else "")


def _enum(enum: EnumDescriptorProto, path: tuple[int, ...], comments: dict[tuple[int, ...], str]) -> Iterator[str]:
    yield f"\n**{enum.name}** (enum)\n"
    for index, value in enumerate(enum.value):
        comment = comments.get((*path, _FIELDS, index), "")
        yield f"- `{value.name}`" + (f": {comment}" if comment else "")


def describe(files: FileDescriptorSet) -> str:
    """Return the page."""
    lines = [_HEAD]
    for file in files.file:
        if not file.package.startswith("agentfactory."):
            continue
        comments = _comments(file)
        lines.append(f"\n## {file.package}\n")
        for index, service in enumerate(file.service):
            lines += _service(service, (_SERVICES, index), comments)
        for index, message in enumerate(file.message_type):
            lines += _message(message, (_MESSAGES, index), comments)
        for index, enum in enumerate(file.enum_type):
            lines += _enum(enum, (_ENUMS, index), comments)
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    described = FileDescriptorSet()
    described.ParseFromString(Path(sys.argv[1]).read_bytes())
    Path(sys.argv[2]).write_text(describe(described))
