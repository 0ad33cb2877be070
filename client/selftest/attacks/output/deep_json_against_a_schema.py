"""An output nested half a million deep, which the node must compare with the template's schema.

Source: CWE-674. Expected: OUTPUT, without the node's own stack or time.
"""

from client.selftest.attack import Guest, fails, once
from client.selftest.guests import ECHO

_SCHEMA = {"output_schema": {"type": "object"}}
ATTACK = once(Guest(wat=ECHO, document=_SCHEMA), expect=fails("OUTPUT"), text="[" * 60_000)
