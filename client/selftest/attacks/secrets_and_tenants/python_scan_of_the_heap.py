"""An agent that searches every object and a fresh block of memory for canaries of earlier invocations.

Source: CWE-226, CWE-244. Expected: no canary is found.
"""

from client.selftest.attack import Answers, Guest, once

_SOURCE = """
import gc

def process(text):
    word = "can" + "ary-"
    found = 0
    for each in gc.get_objects():
        try:
            found += word in repr(each)[:10_000] and each is not globals() and "word" not in repr(each)[:10_000]
        except BaseException:
            pass
    block = bytearray(8 << 20)
    return [found, bytes(block).count(word.encode())]
"""
ATTACK = once(Guest(python=_SOURCE, limits={"fuel": 5_000_000_000}), expect=Answers("[0, 0]"))
