"""Approvals that have ended, and approvals for longer than the charter lets reviewers give one.

Source: CWE-613, CWE-672. Expected: those templates do not exist on the node; the others run.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from client.aio import AsyncAgentFactory
from client.selftest.attack import Attack, fails
from client.selftest.forgeries import forge
from client.selftest.guests import ORDINARY
from client.selftest.stage import Stage
from client.selftest.starts import answer_of, serving
from client.selftest.world import Approval
from templates.approval import Statement


def _until(days: float) -> Approval:
    end = datetime.now(UTC).replace(microsecond=0) + timedelta(days=days)

    def amend(statement: Statement) -> Statement:
        return replace(statement, expires=end)

    return Approval(amend=amend)


async def _run(stage: Stage) -> None:
    small = forge(stage)
    ended = small.world.approve("attacks/ended", ORDINARY, _until(-0.1))
    long = small.world.approve("attacks/long", ORDINARY, _until(3_650))
    await small.taken(small.world.publish(small.template, ended, long))
    async with serving(small.node) as node:
        stage.require(await answer_of(node, "text") == "text", "expected the other template to run")
        tls = small.world.service("acme")
        async with AsyncAgentFactory.connect(
            node.address, certificate=tls.certificate, key=tls.key, authorities=tls.authorities
        ) as factory:
            for name in ("attacks/ended", "attacks/long"):
                seen = await stage.attempt(lambda: factory.invoke_template(name, "text"))  # noqa: B023 - awaited here
                fails("UNKNOWN_TEMPLATE").check(seen)


ATTACK = Attack(run=_run)
