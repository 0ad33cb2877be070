"""A guest that invokes another one as often as it can.

Source: CWE-770. Expected: HOST_CALLS at the limit of the caller.
"""

from client.selftest.attack import Guest, fails, once

_SOURCE = """
from agentfactory_sdk import agents

def process(text):
    while True:
        try:
            agents.invoke("attacks/ordinary", "text")
        except BaseException:
            pass
"""
ATTACK = once(
    Guest(python=_SOURCE, grants={"agents": ["attacks/ordinary"]}, limits={"host_calls": 50}),
    expect=fails("HOST_CALLS"),
)
