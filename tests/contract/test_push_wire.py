"""The shape of the push protocol on the wire: numbers and types that nodes of other versions rely on."""

import pytest
from agentfactory.distribution.v1 import distribution_pb2 as pb

from control_plane.fan_out import FullMessage, LeaseMessage, PartingMessage
from control_plane.grpc_push import _to_proto
from control_plane.publication import Update
from control_plane.push import Parting

UPDATE = Update(generation=7, lease_version=3, frame=b"frame", bundle_sha256=b"s" * 32, timestamp=b"{}")


def test_messages_are_what_their_fields_say() -> None:
    full = _to_proto(FullMessage(update=UPDATE, urgent=False))
    assert full == pb.SubscribeResponse(
        snapshot_full=pb.SnapshotFull(generation=7, bundle_zstd=b"frame", bundle_sha256=b"s" * 32)
    )
    urgent = _to_proto(FullMessage(update=UPDATE, urgent=True))
    assert urgent.WhichOneof("message") == "revocation"
    assert (urgent.revocation.generation, urgent.revocation.bundle_zstd) == (7, b"frame")
    traced = _to_proto(FullMessage(update=UPDATE, urgent=False, traceparent="00-a"))
    assert traced.snapshot_full.traceparent == "00-a"
    assert _to_proto(FullMessage(update=UPDATE, urgent=True, traceparent="00-a")).revocation.traceparent == "00-a"
    lease = _to_proto(LeaseMessage(generation=7, timestamp=b"{}"))
    assert (lease.lease.generation, lease.lease.timestamp) == (7, b"{}")
    parting = _to_proto(PartingMessage(reason=Parting.SHUTTING_DOWN, reconnect_after_s=1.5))
    assert parting.go_away.reason == "SHUTTING_DOWN"
    assert parting.go_away.reconnect_after.ToTimedelta().total_seconds() == 1.5


@pytest.mark.parametrize(
    ("message", "wire"),
    [
        (pb.SubscribeRequest(hello=pb.Hello(protocol_versions=[1], generation=5)), "0a050a01012005"),
        (pb.SubscribeRequest(ack=pb.Ack(generation=5, stage=pb.STAGE_ACTIVE)), "120408051003"),
        (pb.SubscribeRequest(resync=pb.Resync(reason="x")), "2a030a0178"),
        (pb.SubscribeResponse(lease=pb.Lease(generation=1, timestamp=b"t")), "12050801120174"),
        (pb.SubscribeResponse(snapshot_full=pb.SnapshotFull(generation=1, bundle_zstd=b"b")), "0a050801120162"),
        (
            pb.SubscribeResponse(snapshot_full=pb.SnapshotFull(generation=1, traceparent="t")),
            "0a050801220174",
        ),
        (pb.SubscribeResponse(revocation=pb.Revocation(generation=1, traceparent="t")), "2a050801220174"),
        (pb.SubscribeResponse(revocation=pb.Revocation(generation=1, bundle_zstd=b"b")), "2a050801120162"),
    ],
)
def test_bytes_never_change(message: pb.SubscribeRequest | pb.SubscribeResponse, wire: str) -> None:
    assert message.SerializeToString(deterministic=True).hex() == wire
