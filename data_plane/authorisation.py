"""The table RPC × role of a node. Deny by default: a method that is not listed is nobody's.

Agents belong to tenants, which only services have: they are the invokers, each for the templates that charter and
operator leave it (`data_plane.agents.access`). Operators are persons of the charter, or those whom the role file names;
a control plane may look, not act.
"""

from types import MappingProxyType
from typing import Final

from data_plane.activation.generation import ActiveGeneration
from service.access.roles import Effect, Role, Rules, rule
from templates.acceptance import effective_revocations
from templates.charter import Charter
from templates.revocations import Revocations

AGENT_SERVICE: Final = "agentfactory.agent.v1.AgentService"
NODE_SERVICE: Final = "agentfactory.node.v1.NodeService"
ACCESS_SERVICE: Final = "agentfactory.admin.v1.AccessService"

_INVOKE: Final = rule(Effect.INVOKE, Role.INVOKER)
_READ: Final = rule(Effect.READ, Role.INVOKER)
_KEEP: Final = rule(Effect.WRITE, Role.INVOKER)

RULES: Final[Rules] = MappingProxyType(
    {
        f"/{AGENT_SERVICE}/CreateAgent": _KEEP,
        f"/{AGENT_SERVICE}/BatchCreateAgents": _KEEP,
        f"/{AGENT_SERVICE}/GetAgent": _READ,
        f"/{AGENT_SERVICE}/ListAgents": _READ,
        f"/{AGENT_SERVICE}/DeleteAgent": _KEEP,
        f"/{AGENT_SERVICE}/InvokeAgent": _INVOKE,
        f"/{AGENT_SERVICE}/InvokeTemplate": _INVOKE,
        f"/{AGENT_SERVICE}/StreamInvoke": _INVOKE,
        f"/{AGENT_SERVICE}/ListTemplates": _READ,
        f"/{AGENT_SERVICE}/ListInvocations": _READ,
        f"/{AGENT_SERVICE}/GetInvocation": _READ,
        f"/{AGENT_SERVICE}/GetRecording": _READ,
        f"/{AGENT_SERVICE}/ListRecordings": _READ,
        f"/{AGENT_SERVICE}/DeleteRecording": _KEEP,
        f"/{AGENT_SERVICE}/GetReceiptKey": _READ,
        f"/{NODE_SERVICE}/GetNodeStatus": rule(
            Effect.READ, Role.VIEWER, Role.AUTHOR, Role.REVIEWER, Role.OPERATOR, Role.ADMIN
        ),
        f"/{NODE_SERVICE}/Drain": rule(Effect.PROTECT, Role.OPERATOR, Role.ADMIN),
        f"/{NODE_SERVICE}/ReleaseQuarantine": rule(Effect.WRITE, Role.OPERATOR, Role.ADMIN),
        f"/{ACCESS_SERVICE}/GetCaller": rule(Effect.READ, *Role),
        f"/{ACCESS_SERVICE}/GetAccess": rule(Effect.READ, Role.OPERATOR, Role.ADMIN),
        f"/{ACCESS_SERVICE}/SetSecureMode": rule(Effect.PROTECT, Role.ADMIN),
        f"/{ACCESS_SERVICE}/BlockAddress": rule(Effect.PROTECT, Role.OPERATOR, Role.ADMIN),
        f"/{ACCESS_SERVICE}/UnblockAddress": rule(Effect.PROTECT, Role.OPERATOR, Role.ADMIN),
    }
)

SERVICE_NAMES: Final = tuple(dict.fromkeys(method[1:].partition("/")[0] for method in RULES))


def charter_and_revocations(active: ActiveGeneration) -> tuple[Charter, Revocations]:
    """Return what standings are judged by: the charter that is active, and all that is revoked and not lifted."""
    accepted = active.accepted
    return accepted.charter, effective_revocations(accepted.charter, accepted.belief.revocations)
