"""Origins that are the node's own ports, by every name that this host has.

Source: CWE-918. Expected: each is refused when the template is read, for the node's page of metrics as for its calls.
"""

import socket

from client.selftest.attack import Attack
from client.selftest.origins import never_reached
from client.selftest.stage import Stage


async def _run(stage: Stage) -> None:
    ports = {address.rpartition(":")[2] for address in (stage.node.address, stage.node.observation)}
    hosts = {"localhost", "127.0.0.1", "[::1]", "0.0.0.0", "127.1", "[::ffff:127.0.0.1]"}  # noqa: S104 - to be refused
    name = socket.gethostname()
    hosts |= {name} if "." not in name else set()
    for host in sorted(hosts):
        for port in sorted(ports):
            for scheme in ("http", "https"):
                await never_reached(stage, f"{scheme}://{host}:{port}")


ATTACK = Attack(run=_run)
