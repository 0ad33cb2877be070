"""A model that counts negative tokens, so that using it would fill the budget.

Source: CWE-839. Expected: such a count is not believed, and each answer is charged as it was reserved.
"""

from client.selftest.attack import Attack
from client.selftest.hostile_model import OUTPUT_TOKENS_MAX
from client.selftest.model_questions import WHOLE, ask, asker
from client.selftest.stage import Stage

_ANSWERS = 3
_QUESTIONS = 8


async def _run(stage: Stage) -> None:
    found = await ask(stage, *[(WHOLE, "liar", None)] * _QUESTIONS)
    answered = [each for each in found if not each["kind"]]
    stage.require(1 <= len(answered) <= _ANSWERS + 1, f"expected about {_ANSWERS} answers, got {len(answered)}")
    stage.require(found[-1]["kind"] == "budget", f"expected the budget to end, got {found[-1]}")
    stage.require(all(min(each["usage"]) >= 0 for each in answered), f"expected no negative use, got {answered}")


ATTACK = Attack(guests={"guest": asker("liar", tokens_max=_ANSWERS * OUTPUT_TOKENS_MAX)}, run=_run)
