"""What an interpreter tells about the machine: name, user, process, platform, uptime, time zone.

Source: CWE-497. Expected: nothing of this host: its name is nowhere, its clock starts with the invocation.
"""

import json
import socket

from client.selftest.attack import Attack, Guest
from client.selftest.stage import Stage

_SOURCE = """
import os, socket, sys, time

def attempt(what):
    try:
        return repr(what())
    except BaseException as error:
        return type(error).__name__

def process(text):
    return {
        "uptime_s": time.monotonic(),
        "facts": [attempt(os.getpid), attempt(os.getcwd), attempt(lambda: os.uname()), attempt(socket.gethostname),
                  attempt(lambda: os.getlogin()), attempt(lambda: os.getuid()), attempt(lambda: time.tzname),
                  attempt(lambda: os.cpu_count()), attempt(lambda: os.listdir("/proc")), sys.platform],
    }
"""


async def _run(stage: Stage) -> None:
    seen = await stage.invoke()
    stage.require(seen.output is not None, f"expected an answer, got {seen.reason}: {seen.message}")
    found = json.loads(seen.output or "{}")
    stage.require(found["uptime_s"] < 60, f"expected a clock that begins with the invocation, got {found['uptime_s']}")
    name = socket.gethostname()
    stage.require(name not in str(found["facts"]), f"expected nothing of the host, got {found['facts']}")


ATTACK = Attack(guests={"guest": Guest(python=_SOURCE)}, run=_run)
