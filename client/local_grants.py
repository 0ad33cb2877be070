"""What a command line may grant one local run: nothing that its template does not ask for."""

from typing import TYPE_CHECKING

from templates.reasons import AgentFactoryError, Reason
from templates.resolved import ResolvedTemplate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from client.local_files import LocalMount
    from client.local_http import Outside
    from client.local_llm import Models


class LocalGrantError(AgentFactoryError):
    """The command line grants what the template does not ask for, or what cannot be meant."""

    reason = Reason.LOCAL_GRANT_INVALID


def refuse_unasked(
    resolved: ResolvedTemplate,
    granted: frozenset[str],
    *,
    mounts: "Sequence[LocalMount]",
    outside: "Outside | None",
    models: "Models | None",
) -> None:
    """Raise `LocalGrantError` for an interface or mount not asked for, or a secret or key that nothing would use."""
    asked = resolved.grants.interfaces()
    if strange := sorted(granted - asked):
        raise LocalGrantError(
            f"expected grants that {resolved.ref} asks for ({', '.join(sorted(asked)) or 'none'}), got {strange[0]}"
        )
    if strange := sorted({each.mount for each in mounts} - {grant.mount for grant in resolved.grants.files}):
        raise LocalGrantError(f"expected a mount of {resolved.ref}'s files grants, got {strange[0]}")
    if outside and outside.secrets and "http" not in granted:
        raise LocalGrantError(f"expected http to be granted where secrets are, got {min(outside.secrets)} without it")
    if models and models.keys and "llm" not in granted:
        raise LocalGrantError(f"expected llm to be granted where its keys are, got {min(models.keys)} without it")
