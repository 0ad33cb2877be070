"""Everything that a good caller sent, recorded on its way and sent again: a replayed identity.

Source: CWE-294. Expected: nothing of it is carried out again: each handshake is of its own keys, and early data is off.
"""

import asyncio

from client.aio import AsyncAgentFactory
from client.selftest.attack import Attack, Guest
from client.selftest.callers import Recorder, replayed
from client.selftest.guests import ECHO
from client.selftest.stage import OTHER, Stage

_TEXT = "once and never again"


async def _run(stage: Stage) -> None:
    port = int(stage.node.address.rpartition(":")[2])
    tls = stage.world.service(OTHER)
    async with (
        Recorder(port) as recorder,
        AsyncAgentFactory.connect(
            recorder.address, certificate=tls.certificate, key=tls.key, authorities=tls.authorities
        ) as factory,
    ):
        answer = await factory.invoke_template(stage.case.template("guest"), _TEXT)
    stage.require(answer.output == _TEXT, f"expected an answer through the recorder, got {answer}")
    before = await _invocations(stage)
    for sent in recorder.connections:
        stage.require(len(sent) > 500, f"expected a whole conversation, got {len(sent)} bytes")
        stage.note(await asyncio.to_thread(replayed, port, bytes(sent)))
    after = await _invocations(stage)
    stage.require(after == before, f"expected nothing to be carried out again, got {after} instead of {before}")


async def _invocations(stage: Stage) -> list[str]:
    found = await stage.factory(OTHER).list_invocations(template=stage.case.template("guest"))
    return [each.invocation_id for each in found]


ATTACK = Attack(guests={"guest": Guest(wat=ECHO)}, run=_run)
