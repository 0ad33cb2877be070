"""Values of five megabytes and keys of a kilobyte, handed to the state.

Source: CWE-130. Expected: refused before they are converted or carried.
"""

from client.selftest.attack import Answers, Guest, once
from client.selftest.guests import KV

_SOURCE = """
from agentfactory_sdk import kv, InvalidError, QuotaError

def attempt(key, value):
    try:
        kv.put(key, value)
    except (InvalidError, QuotaError):
        return "refused"
    return "taken"

def process(text):
    return [attempt("k", "x" * 5_000_000), attempt("k" * 1024, "x"), attempt("", "x"), attempt("a\\0b", "x")]
"""
ATTACK = once(Guest(python=_SOURCE, grants=KV), expect=Answers('["refused", "refused", "refused", "refused"]'))
