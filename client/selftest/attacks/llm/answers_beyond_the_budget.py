"""A model that answers fifty times what it was asked for, and counts it.

Source: OWASP LLM10, unbounded consumption. Expected: it is charged, and the next question is refused before it is sent.
"""

from client.selftest.attack import Attack
from client.selftest.hostile_model import OUTPUT_TOKENS_MAX
from client.selftest.model_questions import STREAM, WHOLE, ask, asker
from client.selftest.stage import Stage

_TOKENS_MAX = 10 * OUTPUT_TOKENS_MAX


async def _run(stage: Stage) -> None:
    for how in (WHOLE, STREAM):
        before = len(stage.model.asked)
        found = await ask(stage, *[(how, "overrun", None)] * 3)
        kinds = [each["kind"] for each in found]
        stage.require(kinds == ["", "budget", "budget"], f"expected one answer, got {str(found)[:300]}")
        stage.require(len(stage.model.asked) == before + 1, "expected nothing to be sent beyond the budget")
        wanted = stage.model.asked[-1].body.get("max_tokens")
        stage.require(wanted == OUTPUT_TOKENS_MAX, f"expected {OUTPUT_TOKENS_MAX} to be asked for, got {wanted}")


ATTACK = Attack(guests={"guest": asker("overrun", tokens_max=_TOKENS_MAX)}, run=_run)
