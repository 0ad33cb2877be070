"""Protobuf messages of the agent service, from the node's own values and back."""

import base64
import binascii
from typing import Final

from agentfactory.agent.v1 import agent_pb2 as pb
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from data_plane.activation.generation import ActiveTemplate
from data_plane.agents.invocations import InvocationRecord
from data_plane.agents.refusals import InvalidRequestError
from data_plane.receipts import ReceiptDesk
from data_plane.recording_files import KeptRecording
from sandbox.outcome import LogLine
from templates.canonical import JsonObject, canonical_bytes

PAGE_SIZE_FIRST: Final = 50
PAGE_SIZE_MAX: Final = 1_000


def duration(us: int) -> Duration:
    return Duration(seconds=us // 1_000_000, nanos=us % 1_000_000 * 1_000)


def receipt(record: InvocationRecord, node_id: str, desk: ReceiptDesk | None = None) -> pb.Receipt:
    """The receipt of an invocation that has ended, signed if there is a ``desk``."""
    made = pb.Receipt()
    begin_receipt(made, record, node_id)
    end_receipt(made, record)
    if desk is not None:
        desk.end(made, record, desk.begin(made, record))
    return made


def begin_receipt(made: pb.Receipt, record: InvocationRecord, node_id: str) -> None:
    """Say what is known before the end. Filled in place, since messages given to a constructor are copied."""
    made.invocation_id, made.node, made.generation = record.invocation_id, node_id, record.generation
    made.caller, made.template = record.caller, f"{record.template}@{record.version}"
    made.template_sha256, made.code_sha256 = record.template_sha256, record.code_sha256
    made.image_sha256, made.config_sha256 = record.image_sha256, record.config_sha256


def end_receipt(receipt: pb.Receipt, record: InvocationRecord) -> None:
    """Say what it cost."""
    made, used = receipt.usage, record.usage
    made.fuel = used.fuel
    wall, guest = made.wall, made.guest
    wall.seconds, wall.nanos = used.wall_us // 1_000_000, used.wall_us % 1_000_000 * 1_000
    guest.seconds, guest.nanos = used.guest_us // 1_000_000, used.guest_us % 1_000_000 * 1_000
    made.input_bytes, made.output_bytes = used.input_bytes, used.output_bytes
    made.wasi_calls = used.wasi_calls
    if used.host_calls:
        made.host_calls, made.child_invocations = used.host_calls, used.child_invocations
    if used.log_bytes:
        made.log_bytes = used.log_bytes
    if used.sent_bytes or used.received_bytes or used.tokens:
        made.sent_bytes, made.received_bytes, made.tokens = used.sent_bytes, used.received_bytes, used.tokens
    if (by_grants := used.grants) is not None:
        made.cost_microusd = by_grants.cost_microusd
        made.file_read_bytes, made.file_written_bytes = by_grants.file_read_bytes, by_grants.file_written_bytes


def log_line(line: LogLine) -> pb.LogLine:
    return pb.LogLine(level=line.level, message=line.message, at=duration(line.at_us))


def invocation(record: InvocationRecord, node_id: str, desk: ReceiptDesk | None = None) -> pb.Invocation:
    start_time = Timestamp()
    start_time.FromDatetime(record.started_at)
    return pb.Invocation(
        invocation_id=record.invocation_id,
        agent=f"nodes/{node_id}/agents/{record.agent_id}" if record.agent_id else "",
        receipt=receipt(record, node_id, desk),
        outcome=record.outcome,
        message=record.message,
        start_time=start_time,
        logs=[pb.LogLine(level=each.level, message=each.message, at=duration(each.at_us)) for each in record.logs],
        logs_cut=record.logs_cut,
        parent_invocation_id=record.parent_invocation_id,
    )


def recording_summary(
    kept: KeptRecording, record: InvocationRecord | None, node_id: str, *, age_s_max: float
) -> pb.RecordingSummary:
    """``record`` is None when the log knows the invocation no more."""
    create_time, expire_time = Timestamp(), Timestamp()
    create_time.FromMicroseconds(int(kept.written_s * 1e6))
    expire_time.FromMicroseconds(int((kept.written_s + age_s_max) * 1e6))
    return pb.RecordingSummary(
        invocation_id=kept.invocation_id,
        template="" if record is None else f"{record.template}@{record.version}",
        outcome="" if record is None else record.outcome,
        create_time=create_time,
        expire_time=expire_time,
        size_bytes=kept.size,
        node=node_id,
    )


def template_summary(template: ActiveTemplate) -> pb.TemplateSummary:
    resolved = template.resolved
    return pb.TemplateSummary(
        template=template.ref_text,
        sha256=template.sha256,
        role=resolved.role,
        description=resolved.description,
        capabilities=resolved.capabilities,
        tools=resolved.tools,
        limits=pb.Limits(**resolved.limits.amounts()),
        default_config=template.default_config.decode(),
        config_schema=_json_text(resolved.config_schema),
        input_schema=_json_text(resolved.input_schema),
        output_schema=_json_text(resolved.output_schema),
    )


def ceilings(asked: pb.Limits) -> dict[str, int]:
    """Return the amounts that a request names; 0 names none."""
    return {field.name: value for field, value in asked.ListFields()}


def page_size(asked: int) -> int:
    if asked < 0:
        raise InvalidRequestError(field="page_size", expected="a count", got=str(asked))
    return min(asked or PAGE_SIZE_FIRST, PAGE_SIZE_MAX)


def page_token(last: str) -> str:
    return base64.urlsafe_b64encode(last.encode()).decode()


def read_page_token(token: str) -> str:
    try:
        return base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise InvalidRequestError(field="page_token", expected="a next_page_token of this method", got=token) from None


def _json_text(value: JsonObject | None) -> str:
    return "" if value is None else canonical_bytes(value).decode()
