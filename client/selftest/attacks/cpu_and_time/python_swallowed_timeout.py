"""An agent that catches everything and goes on: there is no exception to catch when fuel or time run out.

Source: CWE-705. Expected: FUEL.
"""

from client.selftest.attack import Guest, fails, once

_SOURCE = """
def process(text):
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass
        finally:
            process(text)
"""
ATTACK = once(Guest(python=_SOURCE, limits={"fuel": 300_000_000}), expect=fails("FUEL"))
