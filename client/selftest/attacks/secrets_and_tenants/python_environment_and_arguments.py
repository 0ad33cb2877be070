"""``os.environ``, ``sys.argv`` and standard input, as an interpreter shows them.

Source: CWE-526. Expected: all of them empty.
"""

from client.selftest.attack import Answers, Guest, once

_SOURCE = """
import os, sys

def process(text):
    return {"environ": dict(os.environ), "argv": sys.argv, "stdin": sys.stdin.read()}
"""
ATTACK = once(Guest(python=_SOURCE), expect=Answers('{"environ": {}, "argv": [], "stdin": ""}'))
