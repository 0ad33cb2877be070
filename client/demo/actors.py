"""The people of the demo: alice writes and operates, bob and carol review; each has an identity and a key."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from agentfactory.admin.v1 import admin_pb2 as admin
from agentfactory.admin.v1.admin_pb2_grpc import (
    ChangeServiceStub,
    FleetServiceStub,
    KeyServiceStub,
    RolloutServiceStub,
)
from agentfactory.node.v1 import node_pb2
from agentfactory.node.v1.node_pb2_grpc import NodeServiceStub

from client.demo.story import DemoFailedError
from client.profile import Profile
from client.publishing import read_submission, submit
from client.review import Review, review, sign_review
from service.client_interceptors import RetryPolicy, intercept_channel
from service.status import RemoteError
from service.tls import channel_credentials

if TYPE_CHECKING:
    import grpc

ACTIVE_TIMEOUT_S = 120.0
_POLL_S = 0.05


@contextmanager
def channel(profile: Profile, address: str, identity: str) -> "Iterator[grpc.Channel]":
    """A channel to ``address`` as ``identity``."""
    import grpc

    options = (("grpc.max_receive_message_length", 64 << 20),)
    opened = grpc.secure_channel(address, channel_credentials(profile.tls(identity)), options=options)
    try:
        yield intercept_channel(opened, RetryPolicy(turn_wait_s_max=60.0))
    finally:
        opened.close()


def publish(profile: Profile, path: Path, *, author: str) -> admin.Change:
    """Submit a template document with its code, as its author."""
    with channel(profile, profile.control_plane, author) as opened:
        return submit(opened, read_submission(path))


def approve(profile: Profile, change: str, *, reviewer: str) -> tuple[Review, admin.Change]:
    """Derive the change on the reviewer's machine, sign, and hand in the signature."""
    with channel(profile, profile.control_plane, reviewer) as opened:
        found = review(
            opened,
            change,
            trust_directory=profile.trust_directory,
            cache=profile.directory / "reviewers" / reviewer / "cache",
        )
        envelope = sign_review(
            found, key_file=profile.signing_keys[reviewer], passphrase_file=profile.passphrase_files[reviewer]
        )
        after = ChangeServiceStub(opened).ApproveChange(
            admin.ApproveChangeRequest(name=change, envelope=envelope), timeout=60.0
        )
    return found, after


def rollback(profile: Profile, *, reason: str) -> admin.Generation:
    """Return the whole fleet to the generation before."""
    with channel(profile, profile.control_plane, profile.person) as opened:
        return RolloutServiceStub(opened).Rollback(admin.RollbackRequest(reason=reason), timeout=30.0)


def trust(profile: Profile) -> admin.GetTrustResponse:
    """The public metadata and the bundle of the present generation."""
    with channel(profile, profile.control_plane, profile.person) as opened:
        return KeyServiceStub(opened).GetTrust(admin.GetTrustRequest(), timeout=30.0)


def wait_active(profile: Profile, generation: int) -> float:
    """Wait until every node has acknowledged ``generation`` as ACTIVE; return the seconds that took.

    Raises:
        DemoFailedError: a node refused it, or it took too long.
    """
    started = time.monotonic()
    with channel(profile, profile.control_plane, profile.person) as opened:
        while time.monotonic() < started + ACTIVE_TIMEOUT_S:
            nodes = FleetServiceStub(opened).ListNodes(admin.ListNodesRequest(), timeout=10.0).nodes
            for node in nodes:
                if node.refused_generation >= generation and node.refusal_reason:
                    raise DemoFailedError(f"{node.id} refused: {node.refusal_reason}: {node.refusal_message}")
            reached = [node for node in nodes if node.generation >= generation and node.stage == "ACTIVE"]
            if len(reached) == len(profile.nodes):
                return time.monotonic() - started
            time.sleep(_POLL_S)
    raise DemoFailedError(
        f"expected generation {generation} to be active on every node within {ACTIVE_TIMEOUT_S:.0f} s"
    )


def node_status(profile: Profile, node: str) -> node_pb2.NodeStatus | None:
    """Ask a node about itself; None while it does not answer."""
    try:
        with channel(profile, profile.nodes[node], profile.person) as opened:
            return NodeServiceStub(opened).GetNodeStatus(node_pb2.GetNodeStatusRequest(), timeout=5.0)
    except RemoteError:
        return None
