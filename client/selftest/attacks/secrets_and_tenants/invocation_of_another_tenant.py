"""Another tenant's invocation, by its id; and an id that does not exist.

Source: CWE-639, CWE-204. Expected: the same answer for both, and no record in the list.
"""

from client.selftest.attack import Attack, Guest
from client.selftest.guests import ECHO
from client.selftest.stage import OTHER, Stage


async def _run(stage: Stage) -> None:
    theirs = await stage.invoke(text="theirs", tenant=OTHER)
    absent = theirs.invocation_id[:-1] + ("0" if theirs.invocation_id[-1] != "0" else "1")
    factory = stage.factory()
    one = await stage.attempt(lambda: factory.get_invocation(theirs.invocation_id))
    two = await stage.attempt(lambda: factory.get_invocation(absent))
    stage.require(one.output is None, f"expected a refusal, got {one.output}")
    same = one.message.replace(theirs.invocation_id, "")
    stage.require(
        (one.reason, same) == (two.reason, two.message.replace(absent, "")), f"expected one answer, got {one} and {two}"
    )
    listed = await factory.list_invocations(template=stage.case.template("guest"))
    stage.require(
        theirs.invocation_id not in {record.invocation_id for record in listed}, "expected no record of another tenant"
    )


ATTACK = Attack(guests={"guest": Guest(wat=ECHO)}, run=_run)
