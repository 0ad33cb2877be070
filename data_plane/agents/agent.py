"""Agents as values: names, identifiers, configuration, and what a request to create one says."""

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime

from data_plane.agents.refusals import InvalidRequestError
from templates.canonical import JsonObject, JsonValue, canonical_bytes
from templates.names import TemplateName

CONFIG_BYTES_MAX = 65_536
CONFIG_DEPTH_MAX = 32
REQUEST_ID_CHARACTERS_MAX = 128
BATCH_MAX = 1_000

_NODE = r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?"
_AGENT_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_AGENT_NAME = re.compile(rf"nodes/(?P<node>{_NODE})/agents/(?P<id>{_AGENT_ID.pattern})")


@dataclass(frozen=True, slots=True)
class AgentName:
    """``nodes/<node>/agents/<id>``; the id is unique within one tenant on one node."""

    node: str
    agent_id: str

    @classmethod
    def parse(cls, text: str) -> "AgentName":
        """Raise `InvalidRequestError` for anything but a whole name."""
        found = _AGENT_NAME.fullmatch(text)
        if found is None:
            raise InvalidRequestError(field="name", expected="nodes/<node>/agents/<id>", got=text)
        return cls(found["node"], found["id"])

    def __str__(self) -> str:
        return f"nodes/{self.node}/agents/{self.agent_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """A named instance of a template, owned by a tenant. ``config`` is its own, canonical, without the defaults.

    ``limits`` are its own ceilings, sorted by name; they narrow the template's for each of its invocations.
    """

    tenant: str
    agent_id: str
    template: TemplateName
    config: bytes
    created_at: datetime
    limits: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAgent:
    """A checked wish to create ``agent``. ``request_sha256`` tells a repeated request from another of the same id."""

    agent: Agent
    request_id: str
    request_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentScope:
    """Where key-value state lives: of one agent, or of a template's agentless invocations (``agent_id`` empty)."""

    tenant: str
    template: TemplateName
    agent_id: str = ""


def require_agent_id(text: str) -> str:
    if not _AGENT_ID.fullmatch(text):
        raise InvalidRequestError(field="agent_id", expected="[a-z0-9][a-z0-9-]{0,62}", got=text)
    return text


def require_request_id(text: str) -> str:
    if len(text) > REQUEST_ID_CHARACTERS_MAX or not text.isprintable():
        expected = f"at most {REQUEST_ID_CHARACTERS_MAX} printable characters"
        raise InvalidRequestError(field="request_id", expected=expected, got=text)
    return text


def request_digest(
    *, template: TemplateName, agent_id: str, config: bytes, limits: tuple[tuple[str, int], ...] = ()
) -> str:
    """Return what makes two requests to create an agent the same."""
    said: list[JsonValue] = [str(template), agent_id, config.decode()]
    if limits:
        said.append({**dict(limits)})
    return hashlib.sha256(canonical_bytes(said)).hexdigest()


def merged_config(defaults: JsonObject, own: JsonObject) -> JsonObject:
    """Lay ``own`` over ``defaults``: objects merge member by member, everything else replaces."""
    merged: JsonObject = dict(defaults)
    for key, value in own.items():
        below = merged.get(key)
        merged[key] = merged_config(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def require_object(value: JsonValue) -> JsonObject:
    if not isinstance(value, dict):
        raise InvalidRequestError(field="config", expected="a JSON object", got=type(value).__name__)
    return value
