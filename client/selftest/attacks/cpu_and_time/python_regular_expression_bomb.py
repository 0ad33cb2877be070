"""A regular expression that backtracks exponentially, in one call of the interpreter's C code.

Source: CWE-1333. Expected: FUEL.
"""

from client.selftest.attack import Guest, fails, once

_SOURCE = "import re\ndef process(text):\n    return str(re.match(r'(a+)+$', 'a' * 60 + 'b'))\n"
ATTACK = once(Guest(python=_SOURCE, limits={"fuel": 300_000_000}), expect=fails("FUEL"))
