"""Expressions that an agent evaluates to reach out of its sandbox; one guest for all of them."""

from collections.abc import Sequence
from typing import Final

from client.selftest.attack import BreachError
from client.selftest.stage import Stage

PROBE: Final = """
def process(text):
    value = eval(text)
    return f"reached: {value!r}"
"""


async def nothing_is_reached(stage: Stage, expressions: Sequence[str]) -> None:
    """Have the guest evaluate each; all of them must end in an error of the agent's own."""
    for expression in expressions:
        seen = await stage.invoke(text=expression)
        if seen.reason not in {"GUEST_ERROR", "TRAP"}:
            raise BreachError(f"expected {expression} to fail, got {seen.output or seen.reason + seen.message}")
