"""A template that was granted a namespace of the same name as another template's.

Source: CWE-653. Expected: its own, empty state: names are keyed by tenant, domain and template first.
"""

from client.selftest.attack import Answers, Guest, once

_SOURCE = """
from agentfactory_sdk import kv

def process(text):
    return [list(kv.keys("")), repr(kv.get("canary"))]
"""
ATTACK = once(
    Guest(python=_SOURCE, grants={"kv": {"namespace": "canaries", "bytes_max": 65_536}}), expect=Answers('[[], "None"]')
)
