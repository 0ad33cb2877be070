"""A model that sends the key back: as text, in pieces of a stream, encoded, as its own name, and in its errors.

Source: CWE-201, OWASP LLM02. Expected: no byte of the key reaches the guest.
"""

from client.selftest.attack import Attack
from client.selftest.model_questions import STREAM, WHOLE, ask, asker
from client.selftest.stage import Stage


async def _run(stage: Stage) -> None:
    models = ("leaky", "leaky-error")
    found = await ask(stage, *((how, model, None) for model in models for how in (WHOLE, STREAM)))
    kinds = [each["kind"] for each in found]
    stage.require(kinds == ["", "", "failed", "failed"], f"expected two answers and two failures, got {found}")
    sent = {each.key.rpartition(" ")[2] for each in stage.model.asked if each.model in models}
    credential = sent.pop() if len(sent) == 1 else ""
    stage.require(len(credential) > 20, "expected the model to get the key, got none: then nothing is shown")
    forms = (credential, credential[::-1], credential.encode().hex(), credential[:12])
    stage.require(not any(form in str(found) for form in forms), "expected scrubbed answers, got the key in them")
    stage.require("\\x1b" not in str(found), "expected printable errors, got what steers a terminal")


ATTACK = Attack(guests={"guest": asker("leaky", "leaky-error")}, run=_run)
