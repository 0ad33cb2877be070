"""An output with a key twice: one reader takes the first, the schema's reader another.

Source: CWE-436. Expected: OUTPUT.
"""

from client.selftest.attack import Guest, fails, once
from client.selftest.guests import ECHO

_SCHEMA = {"output_schema": {"type": "object", "properties": {"role": {"enum": ["user"]}}}}
ATTACK = once(Guest(wat=ECHO, document=_SCHEMA), expect=fails("OUTPUT"), text='{"role": "admin", "role": "user"}')
