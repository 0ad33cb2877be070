"""NUL, escapes and separators in an output: to the node they are text and nothing else.

Source: CWE-158. Expected: delivered as they are, byte for byte; the caller decides what to show.
"""

from client.selftest.attack import Answers, Guest, once
from client.selftest.guests import ECHO

_TEXT = "a\0b\x1b[2J\r\n\u2028\u202edrowssap\x85"
ATTACK = once(Guest(wat=ECHO), expect=Answers(_TEXT), text=_TEXT)
