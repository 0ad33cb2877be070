"""What is active in an installation, as this machine verifies it: from its own root of trust, like a node does.

The control plane can show an older generation while its lease lasts, and leave templates out of one that it signs; it
cannot make up a template or its rights, which take the reviewers' signatures.
"""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from templates.bundle import Bundle, decompress, read_bundle
from templates.charter import Charter, Mode
from templates.reasons import AgentFactoryError, Reason
from templates.trusted_set import Accepted, Belief, Installation, accept

if TYPE_CHECKING:
    import grpc

FETCH_TIMEOUT_S = 60.0
_NO_NODE = ""
"""No node is called so: what the plan says for it is what it says for every node that it does not name."""


class CharterBehindError(AgentFactoryError):
    """The control plane's generation was made under an older charter than this machine's."""

    reason = Reason.REVIEW_MISMATCH


def fetch_active(channel: "grpc.Channel", *, charter: Charter, trust_directory: Path, now: datetime) -> Accepted:
    """Fetch the present generation and verify it whole.

    Args:
        channel: to the control plane.
        charter: this machine's own copy.
        trust_directory: where this machine's ``root.json`` lies.
        now: aware, UTC, by this machine's clock.

    Raises:
        AgentFactoryError: as `templates.trusted_set.accept`.
        CharterBehindError: as `verify_active`.
        RemoteError: the control plane refused or could not be reached.
    """
    from agentfactory.admin.v1 import admin_pb2 as pb
    from agentfactory.admin.v1.admin_pb2_grpc import KeyServiceStub

    public = KeyServiceStub(channel).GetTrust(pb.GetTrustRequest(), timeout=FETCH_TIMEOUT_S)
    root = (trust_directory / "root.json").read_bytes()
    return verify_active(read_bundle(decompress(public.bundle_zstd)), root=root, charter=charter, now=now)


def verify_active(bundle: Bundle, *, root: bytes, charter: Charter, now: datetime) -> Accepted:
    """Verify a generation against this machine's root of trust.

    Raises:
        AgentFactoryError: as `templates.trusted_set.accept`.
        CharterBehindError: it is of an older charter: a reviewer whom the newer one dropped would count.
    """
    accepted = accept(
        bundle,
        belief=Belief(root=root),
        installation=Installation(
            node_id=_NO_NODE, environment=charter.environment, production=charter.mode is Mode.PRODUCTION
        ),
        now=now,
    )
    if accepted.charter.version < charter.version:
        raise CharterBehindError(
            f"expected a generation under charter {charter.version}, this machine's, or a newer one, "
            f"got {accepted.charter.version}: bring the charter to the control plane first"
        )
    return accepted
