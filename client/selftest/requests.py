"""A guest that makes the HTTP request that its input describes, and what may come of it."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from client.selftest.attack import BreachError, Guest
from client.selftest.hostile_service import HEADER, PLACEHOLDER, SECRET
from client.selftest.stage import Stage

REQUESTER: Final = """
import json
from agentfactory_sdk import http, HostError

def process(text):
    request = json.loads(text)
    binding = request.pop("binding", "service")
    try:
        found = http.request(binding, request.pop("method", "GET"), request.pop("path"), **request)
    except HostError as error:
        return {"kind": error.kind, "message": str(error)[:500]}
    except (TypeError, ValueError) as error:
        return {"kind": "invalid", "message": str(error)[:500]}
    return {"kind": "", "status": found.status, "headers": dict(found.headers), "text": found.text[:100_000]}
"""
FREE: Final[Mapping[str, Any]] = {
    "binding": "service",
    "origin": PLACEHOLDER,
    "methods": ["GET", "POST"],
    "path_prefixes": ["/free", "/bound"],
}
BOUND: Final[Mapping[str, Any]] = {**FREE, "inject": {"header": HEADER, "secret": SECRET}}


def requester(*grants: Mapping[str, Any], **limits: int) -> Guest:
    """The guest, with these http grants."""
    wide = {"host_calls": 50, "output_bytes": 1 << 20, "wall_ms": 10_000, **limits}
    return Guest(python=REQUESTER, grants={"http": [dict(grant) for grant in grants]}, limits=wide)


async def ask(stage: Stage, path: str, *, guest: str = "guest", **request: Any) -> dict[str, Any]:
    """Have the guest make one request; return its answer, or the kind of the refusal."""
    seen = await stage.invoke(guest, json.dumps({"path": path, **request}))
    if seen.output is None:
        raise BreachError(f"expected an answer of the agent, got {seen.reason}: {seen.message[:300]}")
    found: dict[str, Any] = json.loads(seen.output)
    return found


async def require_refused(stage: Stage, path: str, kinds: Sequence[str], **request: Any) -> None:
    """Have the guest make a request that must be refused with one of ``kinds``, and reach nobody where it is denied."""
    before = len(stage.service.received)
    found = await ask(stage, path, **request)
    if found["kind"] not in kinds:
        raise BreachError(f"expected {' or '.join(kinds)} for {path!r} {request}, got {str(found)[:300]}")
    if found["kind"] in {"denied", "invalid"} and len(stage.service.received) != before:
        raise BreachError(f"expected nothing to be sent for {path!r} {request}, got {stage.service.received[-1]}")
