"""Another tenant's agent, by its name: read, invoked, deleted; and a name that no agent has.

Source: CWE-639, CWE-204. Expected: the same answer for both: whether it exists is not to be learnt.
"""

from client.selftest.attack import Attack, Guest
from client.selftest.guests import ECHO
from client.selftest.stage import OTHER, Stage


async def _run(stage: Stage) -> None:
    theirs = await stage.factory(OTHER).create_agent(stage.case.template("guest"))
    absent = theirs.name + "x"
    factory = stage.factory()
    try:
        for attempt in (
            factory.get_agent,
            lambda name: factory.invoke(name, "text"),
            factory.delete_agent,
        ):
            one = await stage.attempt(lambda: attempt(theirs.name))  # noqa: B023 - awaited here
            two = await stage.attempt(lambda: attempt(absent))  # noqa: B023
            stage.require(one.output is None, f"expected a refusal, got {one.output}")
            same = one.message.replace(theirs.name, "").replace(theirs.name.rpartition("/")[2], "")
            other = two.message.replace(absent, "").replace(absent.rpartition("/")[2], "")
            stage.require(
                (one.reason, same) == (two.reason, other), f"expected one answer for both, got {one} and {two}"
            )
        listed = [record.name async for record in factory.list_agents()]
        stage.require(theirs.name not in listed, "expected no agent of another tenant in the list")
    finally:
        await theirs.delete()


ATTACK = Attack(guests={"guest": Guest(wat=ECHO)}, run=_run)
