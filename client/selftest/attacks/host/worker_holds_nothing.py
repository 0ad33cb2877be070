"""What a worker process has that code which escaped from a guest would find.

Source: least privilege. Expected: no environment, one socket and nothing else of the host, one thread, no privileges.
"""

import asyncio

from client.selftest.attack import Attack, Guest
from client.selftest.deaths import worker_pids
from client.selftest.guests import ECHO
from client.selftest.process_facts import facts_of
from client.selftest.stage import ATTACKER, Stage


async def _run(stage: Stage) -> None:
    await stage.invoke(text="x")
    for pid in await worker_pids(stage, ATTACKER):
        facts = await asyncio.to_thread(facts_of, pid)
        stage.note(facts.environment)
        stage.require(not facts.environment, "expected an empty environment")
        stage.require(facts.directory in {"/", ""}, f"expected the root as directory, got {facts.directory}")
        stage.require(facts.threads == 1, f"expected one thread, got {facts.threads}")
        sockets = [target for target in facts.descriptors if target.startswith("socket:")]
        others = {target.partition(":")[0] for target in facts.descriptors} - {"socket", "/dev/null", "/memfd"}
        stage.require(len(sockets) <= 1, f"expected one socket, got {len(sockets)}")
        stage.require(not others, f"expected no descriptor of the host, got {sorted(others)}")
        stage.require(facts.status.get("NoNewPrivs") == "1", "expected no_new_privs")
        capabilities = facts.status.get("CapEff", "0")
        if facts.status.get("Uid", "0").split()[0] != "0":
            stage.require(int(capabilities, 16) == 0, f"expected no capabilities, got {capabilities}")


ATTACK = Attack(guests={"guest": Guest(wat=ECHO)}, run=_run)
