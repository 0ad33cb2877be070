"""An agent that connects to loopback, the metadata service, the node's own ports, and asks for names.

Source: CWE-918. Expected: an error of the agent each time.
"""

from client.selftest.attack import Attack, Guest
from client.selftest.reach import PROBE, nothing_is_reached
from client.selftest.stage import Stage


async def _run(stage: Stage) -> None:
    port = int(stage.node.address.rpartition(":")[2])
    await nothing_is_reached(
        stage,
        (
            f"__import__('socket').create_connection(('127.0.0.1', {port}))",
            f"__import__('socket').create_connection(('::1', {port}))",
            "__import__('socket').create_connection(('169.254.169.254', 80))",
            "__import__('socket').getaddrinfo('localhost', 80)",
            "__import__('socket').socket()",
            "__import__('socket').socketpair()",
            "__import__('urllib.request').request.urlopen('http://169.254.169.254/')",
            "__import__('http.client').client.HTTPConnection('127.0.0.1').connect()",
        ),
    )


ATTACK = Attack(guests={"guest": Guest(python=PROBE)}, run=_run)
