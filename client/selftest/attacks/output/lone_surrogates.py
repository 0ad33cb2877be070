"""Text with lone surrogates, returned, logged and raised: UTF-8 cannot carry it.

Source: CWE-176. Expected: an error of the agent each time; no host function fails.
"""

from client.selftest.attack import Attack, Guest, fails
from client.selftest.stage import Stage

_SOURCE = """
from agentfactory_sdk import log

def process(text):
    bad = "x" + chr(0xD800) + "y"
    if text == "return":
        return bad
    if text == "log":
        log.info(bad)
        return "logged"
    raise ValueError(bad)
"""


async def _run(stage: Stage) -> None:
    for text in ("return", "raise"):
        await stage.expect(fails("GUEST_ERROR", "OUTPUT"), text=text)
    seen = await stage.invoke(text="log")
    stage.require(
        seen.output == "logged" or seen.reason == "GUEST_ERROR", f"expected no failure of the host, got {seen}"
    )


ATTACK = Attack(guests={"guest": Guest(python=_SOURCE)}, run=_run)
