"""A stream of which one line is sixty-four megabytes long, and answers that are nested twenty thousand deep.

Source: CWE-400, CWE-674. Expected: refused at the limit of a line; JSON that cannot be read is a typed failure.
"""

from client.selftest.attack import Attack
from client.selftest.model_questions import STREAM, WHOLE, asker, require_kinds
from client.selftest.stage import Stage


async def _run(stage: Stage) -> None:
    questions = [(STREAM, "giant-line", None), (STREAM, "garbled", None), (WHOLE, "garbled", None)]
    await require_kinds(stage, ["failed", "quota"], questions)


ATTACK = Attack(guests={"guest": asker("giant-line", "garbled")}, run=_run)
