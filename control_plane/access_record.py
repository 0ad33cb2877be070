"""What access decides goes into the audit log: secure mode and blocks (`service.access.grpc_access.Record`)."""

from collections.abc import Mapping

from control_plane.audit import Decision, about
from control_plane.audit_recorder import AuditRecorder


class AccessRecord:
    """The state lies in a file beside the database (ADR 20): an entry is written behind the effect, not with it."""

    def __init__(self, recorder: AuditRecorder) -> None:
        self._recorder = recorder

    def about(self, resource: str) -> None:
        """Say what the call is about, for its refusal."""
        about(resource)

    async def changed(self, resource: str, *, state_sha256: str, why: str, details: Mapping[str, str]) -> None:
        """Write the entry; what this raises becomes the answer."""
        await self._recorder.effect(
            Decision(resource=resource, digests={"state": state_sha256}, reason=why, details=details)
        )
