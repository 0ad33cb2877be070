"""Protobuf messages to the client's values and back: the only module that knows both."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC
from typing import Any

from agentfactory.agent.v1 import agent_pb2 as pb
from google.protobuf.duration_pb2 import Duration

from client.values import (
    AgentRecord,
    Answer,
    InvocationRecord,
    KeptRecording,
    Limits,
    LogLine,
    Receipt,
    TemplateSummary,
    Usage,
)


def _ms(duration: Duration) -> float:
    return duration.seconds * 1e3 + duration.nanos / 1e6


def _object(text: str) -> Mapping[str, Any]:
    value: Mapping[str, Any] = json.loads(text) if text else {}
    return value


def receipt_of(message: pb.Receipt) -> Receipt:
    usage = message.usage
    return Receipt(
        invocation_id=message.invocation_id,
        node=message.node,
        generation=message.generation,
        caller=message.caller,
        template=message.template,
        template_sha256=message.template_sha256,
        code_sha256=message.code_sha256,
        image_sha256=message.image_sha256,
        config_sha256=message.config_sha256,
        usage=Usage(
            fuel=usage.fuel,
            wall_ms=_ms(usage.wall),
            guest_ms=_ms(usage.guest),
            host_calls=usage.host_calls,
            wasi_calls=usage.wasi_calls,
            input_bytes=usage.input_bytes,
            output_bytes=usage.output_bytes,
            log_bytes=usage.log_bytes,
            child_invocations=usage.child_invocations,
            sent_bytes=usage.sent_bytes,
            received_bytes=usage.received_bytes,
            tokens=usage.tokens,
            cost_microusd=usage.cost_microusd,
            file_read_bytes=usage.file_read_bytes,
            file_written_bytes=usage.file_written_bytes,
        ),
        statement=message.statement,
        signature=message.signature.hex(),
        key_id=message.key_id,
        salt=message.salt.hex(),
    )


def answer_of(message: pb.InvokeResponse) -> Answer:
    return Answer(output=message.output, receipt=receipt_of(message.receipt))


def log_line_of(message: pb.LogLine) -> LogLine:
    return LogLine(level=message.level, message=message.message, at_ms=_ms(message.at))


def agent_of(message: pb.Agent) -> AgentRecord:
    return AgentRecord(
        name=message.name,
        template=message.template,
        template_version=message.template_version,
        config=_object(message.config),
        effective_config=_object(message.effective_config),
        capabilities=tuple(message.capabilities),
        tenant=message.tenant,
        created=message.create_time.ToDatetime(tzinfo=UTC),
        limits={field.name: amount for field, amount in message.limits.ListFields()},
    )


def template_of(message: pb.TemplateSummary) -> TemplateSummary:
    return TemplateSummary(
        template=message.template,
        sha256=message.sha256,
        role=message.role,
        description=message.description,
        capabilities=tuple(message.capabilities),
        tools=tuple(message.tools),
    )


def invocation_of(message: pb.Invocation) -> InvocationRecord:
    return InvocationRecord(
        invocation_id=message.invocation_id,
        agent=message.agent,
        outcome=message.outcome,
        message=message.message,
        started=message.start_time.ToDatetime(tzinfo=UTC),
        parent_invocation_id=message.parent_invocation_id,
        receipt=receipt_of(message.receipt),
        logs=tuple(log_line_of(line) for line in message.logs),
        logs_cut=message.logs_cut,
        has_recording=message.has_recording,
    )


def recording_of(message: pb.RecordingSummary) -> KeptRecording:
    return KeptRecording(
        invocation_id=message.invocation_id,
        node=message.node,
        template=message.template,
        outcome=message.outcome,
        created=message.create_time.ToDatetime(tzinfo=UTC),
        expires=message.expire_time.ToDatetime(tzinfo=UTC),
        size_bytes=message.size_bytes,
    )


def limits_to(limits: Limits | None) -> pb.Limits | None:
    if limits is None:
        return None
    return pb.Limits(**asdict(limits))
