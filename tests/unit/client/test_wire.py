"""Messages of a node become plain values."""

from agentfactory.agent.v1 import agent_pb2 as pb
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from client import wire

RECEIPT = pb.Receipt(
    invocation_id="i",
    node="n",
    generation=7,
    caller="spiffe://t/tenant/a/service/b",
    template="a/b@1.0.0",
    template_sha256="t",
    code_sha256="c",
    image_sha256="m",
    config_sha256="k",
    usage=pb.Usage(
        fuel=1,
        wall=Duration(seconds=1, nanos=500_000_000),
        guest=Duration(nanos=250_000),
        host_calls=2,
        wasi_calls=3,
        input_bytes=4,
        output_bytes=5,
        log_bytes=6,
        child_invocations=8,
        sent_bytes=9,
        received_bytes=10,
        tokens=11,
        cost_microusd=12,
        file_read_bytes=13,
        file_written_bytes=14,
    ),
    statement="{}",
    signature=b"\x01\xff",
    key_id="id",
    salt=b"\0",
)


def test_every_field_of_a_receipt_arrives() -> None:
    receipt = wire.receipt_of(RECEIPT)
    values = receipt.to_json()
    usage = values.pop("usage")
    assert values == {
        "invocation_id": "i",
        "node": "n",
        "generation": 7,
        "caller": "spiffe://t/tenant/a/service/b",
        "template": "a/b@1.0.0",
        "template_sha256": "t",
        "code_sha256": "c",
        "image_sha256": "m",
        "config_sha256": "k",
        "statement": "{}",
        "signature": "01ff",
        "key_id": "id",
        "salt": "00",
    }
    assert usage == {
        "fuel": 1,
        "wall_ms": 1500.0,
        "guest_ms": 0.25,
        "host_calls": 2,
        "wasi_calls": 3,
        "input_bytes": 4,
        "output_bytes": 5,
        "log_bytes": 6,
        "child_invocations": 8,
        "sent_bytes": 9,
        "received_bytes": 10,
        "tokens": 11,
        "cost_microusd": 12,
        "file_read_bytes": 13,
        "file_written_bytes": 14,
    }


def test_an_answer_is_its_text() -> None:
    answer = wire.answer_of(pb.InvokeResponse(output='{"a": 1}', receipt=RECEIPT))
    assert str(answer) == '{"a": 1}'
    assert answer.json() == {"a": 1}


def test_an_agent_has_its_configuration_as_values() -> None:
    record = wire.agent_of(
        pb.Agent(
            name="nodes/n/agents/a",
            template="a/b",
            template_version="1.0.0",
            config='{"x": 1}',
            effective_config="",
            capabilities=["read"],
            create_time=Timestamp(seconds=60),
            tenant="acme",
            limits=pb.Limits(fuel=5),
        )
    )
    assert record.to_json() == {
        "name": "nodes/n/agents/a",
        "template": "a/b",
        "template_version": "1.0.0",
        "config": {"x": 1},
        "effective_config": {},
        "capabilities": ("read",),
        "tenant": "acme",
        "created": "1970-01-01T00:01:00+00:00",
        "limits": {"fuel": 5},
    }


def test_an_invocation_has_its_logs() -> None:
    record = wire.invocation_of(
        pb.Invocation(
            invocation_id="i",
            outcome="FUEL",
            message="ran out",
            receipt=RECEIPT,
            start_time=Timestamp(seconds=1),
            logs=[pb.LogLine(level="info", message="hello", at=Duration(nanos=2_000_000))],
            logs_cut=True,
            parent_invocation_id="p",
        )
    )
    assert [(line.level, line.message, line.at_ms) for line in record.logs] == [("info", "hello", 2.0)]
    assert record.logs_cut
    assert record.parent_invocation_id == "p"
    assert record.to_json()["started"] == "1970-01-01T00:00:01+00:00"


def test_a_template_is_described() -> None:
    summary = wire.template_of(pb.TemplateSummary(template="a/b@1.0.0", role="r", tools=["t"], capabilities=["c"]))
    assert summary.to_json() == {
        "template": "a/b@1.0.0",
        "sha256": "",
        "role": "r",
        "description": "",
        "capabilities": ("c",),
        "tools": ("t",),
    }
