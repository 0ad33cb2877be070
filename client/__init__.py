"""Python client of Agent Factory: ``from client import AgentFactory``. Importing it is cheap; grpc loads when used."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from client.agent_factory import Agent, AgentFactory
    from client.aio import AsyncAgent, AsyncAgentFactory
    from client.receipts import receipt_of_error, verify_receipt
    from client.values import AgentRequest, Answer, Limits, LogLine, Receipt

_HOMES = {
    "Agent": "client.agent_factory",
    "AgentFactory": "client.agent_factory",
    "AgentRequest": "client.values",
    "Answer": "client.values",
    "AsyncAgent": "client.aio",
    "AsyncAgentFactory": "client.aio",
    "Limits": "client.values",
    "LogLine": "client.values",
    "Receipt": "client.values",
    "receipt_of_error": "client.receipts",
    "verify_receipt": "client.receipts",
}

__all__ = [
    "Agent",
    "AgentFactory",
    "AgentRequest",
    "Answer",
    "AsyncAgent",
    "AsyncAgentFactory",
    "Limits",
    "LogLine",
    "Receipt",
    "receipt_of_error",
    "verify_receipt",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'client' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
