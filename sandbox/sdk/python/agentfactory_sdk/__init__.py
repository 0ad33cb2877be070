"""What an agent's source may use of the node that runs it.

    from agentfactory_sdk import agents, config, http, kv, log

    def process(text: str) -> str:
        log.info("started", length=len(text))
        return text[: config["sentences"] * 80]

``config`` is the agent's configuration (a dict), ``invocation_id`` this invocation's name. In a sandbox each invocation
is a fresh interpreter, so reading them while the module loads is fine. (Not so in a module that was built with
`agentctl template build`: that one is started while it is built. There, read them inside ``process``.)
"""

import json
from typing import TYPE_CHECKING

from . import _host, agents, errors, http, kv, log
from .budgets import Budget, budget
from .errors import (
    BudgetError,
    ConflictError,
    DeniedError,
    FailedError,
    HostError,
    InvalidError,
    NotFoundError,
    QuotaError,
)

if TYPE_CHECKING:
    config: dict[str, object]
    invocation_id: str

__all__ = [
    "Budget",
    "BudgetError",
    "ConflictError",
    "DeniedError",
    "FailedError",
    "HostError",
    "InvalidError",
    "NotFoundError",
    "QuotaError",
    "agents",
    "budget",
    "config",
    "errors",
    "http",
    "invocation_id",
    "kv",
    "log",
]


def __getattr__(name: str) -> object:
    """Ask the node only when the agent asks (PEP 562)."""
    if name == "config":
        return json.loads(_host.current().config())
    if name == "invocation_id":
        return _host.current().invocation_id()
    raise AttributeError(f"module 'agentfactory_sdk' has no attribute {name!r}")
