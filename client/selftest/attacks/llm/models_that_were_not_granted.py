"""A guest that asks for models and bindings beyond its grant, and a model that says that it is another one.

Source: CWE-862, CWE-451. Expected: denied before anything is sent; a name that steers a terminal is not passed on.
"""

from client.selftest.attack import Attack
from client.selftest.model_questions import STREAM, WHOLE, ask, asker, require_kinds
from client.selftest.stage import Stage


async def _run(stage: Stage) -> None:
    before = len(stage.model.asked)
    beyond = [("impostor", "overrun"), ("impostor", "IMPOSTOR"), ("overrun", None), ("overrun", "overrun"), ("", None)]
    questions = [(how, binding, model) for how in (WHOLE, STREAM) for binding, model in beyond]
    await require_kinds(stage, ["denied", "invalid"], questions)
    stage.require(len(stage.model.asked) == before, f"expected nothing to be sent, got {stage.model.asked[before:]}")
    for answer in await ask(stage, (WHOLE, "impostor", None), (STREAM, "impostor", None)):
        stage.require(answer["kind"] == "", f"expected an answer, got {answer}")
        stage.require(answer["model"] == "impostor", f"expected the model that was asked, got {answer['model']!r}")
        stage.require(answer["text"] == "? says another", f"expected valid text, got {answer['text']!r}")


ATTACK = Attack(guests={"guest": asker("impostor")}, run=_run)
