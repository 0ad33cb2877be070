"""``time.sleep`` for a minute, again whenever it returns.

Source: CWE-400. Expected: DEADLINE.
"""

from client.selftest.attack import Guest, fails, once

_SOURCE = "import time\ndef process(text):\n    while True:\n        time.sleep(60)\n"
ATTACK = once(Guest(python=_SOURCE, limits={"wall_ms": 300}), expect=fails("DEADLINE"))
