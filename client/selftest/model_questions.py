"""A guest that asks language models what its input says, and what may come of it."""

import json
from collections.abc import Collection, Sequence
from typing import Any, Final

from client.selftest.attack import BreachError, Guest
from client.selftest.stage import Stage

_ASKER: Final = """
import json
from agentfactory_sdk import llm, HostError

OPEN = []

def ask(how, binding, model):
    try:
        if how == "whole":
            answer = llm.complete(binding, "a question", model=model)
        elif how == "forget":
            OPEN.append(llm.stream(binding, "a question", model=model))
            return {"kind": ""}
        else:
            with llm.stream(binding, "a question", model=model) as pieces:
                "".join(pieces)
            answer = pieces.answer
    except HostError as error:
        return {"kind": error.kind, "message": str(error)[:500]}
    usage = [answer.usage.input_tokens, answer.usage.output_tokens]
    names = {"model": answer.model, "reason": answer.finish_reason}
    return {"kind": "", "text": answer.text[:2_000], "usage": usage, **names}

def process(text):
    return [ask(*each) for each in json.loads(text)]
"""
WHOLE: Final = "whole"
STREAM: Final = "stream"
FORGET: Final = "forget"
"""A stream that is opened, and never read or closed."""


def asker(*models: str, tokens_max: int = 100_000) -> Guest:
    """The guest, with a grant for each of these models, each at the binding of its own name."""
    grants = [{"binding": each, "models": [each], "tokens_max": tokens_max} for each in models]
    limits = {"host_calls": 10_000, "wall_ms": 10_000}
    return Guest(python=_ASKER, grants={"llm": grants}, limits=limits)


async def ask(stage: Stage, *questions: tuple[str, str, str | None]) -> list[dict[str, Any]]:
    """Have the guest ask, in one invocation: whole or as a stream, of which binding, which model."""
    seen = await stage.invoke(text=json.dumps(questions))
    if seen.output is None:
        raise BreachError(f"expected an answer of the agent, got {seen.reason}: {seen.message[:300]}")
    found: list[dict[str, Any]] = json.loads(seen.output)
    return found


async def require_kinds(stage: Stage, kinds: Collection[str], questions: Sequence[tuple[str, str, str | None]]) -> None:
    """Have the guest ask; every question must be refused with one of ``kinds``."""
    for question, answer in zip(questions, await ask(stage, *questions), strict=True):
        if answer["kind"] not in kinds:
            raise BreachError(f"expected {' or '.join(kinds)} for {question}, got {str(answer)[:300]}")
