"""Python agents as source text, and real workers with the CPython image to run them in."""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from textwrap import dedent
from typing import Any

from sandbox.limits import SandboxLimits
from sandbox.outcome import Outcome
from sandbox.request import InvocationRequest
from sandbox.supervisor import Worker, WorkerSettings
from tests.images import compiled_image

IMAGE = "cpython"
KV = "agentfactory:runtime/kv@0.1.0"
HTTP = "agentfactory:runtime/http@0.1.0"
AGENTS = "agentfactory:runtime/agents@0.1.0"
Handler = Callable[[dict[str, Any]], object]


class Broker:
    """Answers host calls from functions by name; without one, what was asked for does not exist."""

    def __init__(self, handlers: Mapping[str, Handler] | None = None) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self._handlers = handlers or {}

    async def call(self, interface: str, function: str, argument: bytes) -> bytes:
        name, value = f"{interface}.{function}", json.loads(argument)
        self.calls.append((name, value))
        if name not in self._handlers:
            return json.dumps({"error": {"kind": "not_found", "message": f"no {name}"}}).encode()
        answer = self._handlers[name](value)
        return answer if isinstance(answer, bytes) else json.dumps({"ok": answer}).encode()


@asynccontextmanager
async def python_worker(slots: int = 256) -> AsyncIterator[Worker]:
    """A worker that has loaded the CPython image."""
    worker = await Worker.start(WorkerSettings(slots=slots))
    try:
        await worker.load(IMAGE, compiled_image())
        yield worker
    finally:
        await worker.stop()


async def run(
    worker: Worker,
    source: str,
    text: str | bytes = "",
    *,
    host: Broker | None = None,
    granted: frozenset[str] = frozenset(),
    config: dict[str, object] | None = None,
    process: bool = True,
    invocation_id: str = "invocation-1",
    **limits: int,
) -> Outcome:
    """Run a source agent once."""
    request = InvocationRequest(
        code_id=IMAGE,
        abi="image",
        source=dedent(source).encode(),
        input=text if isinstance(text, bytes) else text.encode(),
        config=json.dumps(config or {}).encode(),
        limits=SandboxLimits(**limits),
        granted=granted,
        invocation_id=invocation_id,
        process=process,
    )
    return await worker.invoke(request, host or Broker())


async def is_healthy(worker: Worker) -> bool:
    """The worker still serves an ordinary agent."""
    outcome = await run(worker, "def process(text): return text.upper()", "still here")
    return outcome.output == b"STILL HERE"


def answer(outcome: Outcome) -> Any:
    """The JSON that an agent returned; shows the failure when there is none."""
    assert outcome.output is not None, outcome.failure
    return json.loads(outcome.output)
