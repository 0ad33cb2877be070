"""A model whose answer never ends: as one body, and as a stream.

Source: OWASP LLM10, unbounded consumption. Expected: a typed refusal at the limit of bytes, or of time.
"""

from client.selftest.attack import Attack
from client.selftest.model_questions import STREAM, WHOLE, asker, require_kinds
from client.selftest.stage import Stage


async def _run(stage: Stage) -> None:
    questions = [(WHOLE, "endless", None), (STREAM, "endless", None)]
    await require_kinds(stage, ["quota", "failed", "budget"], questions)


ATTACK = Attack(guests={"guest": asker("endless")}, run=_run)
