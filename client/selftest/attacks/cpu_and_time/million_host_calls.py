"""Host calls in a loop that ignores every error.

Source: CWE-770. Expected: HOST_CALLS at the limit of the template.
"""

from client.selftest.attack import Guest, fails, once
from client.selftest.guests import KV, command, data

_CALL = (
    "(drop (call $call (i32.const 256) (i32.const 6) (i32.const 1024) (i32.const 11) (i32.const 2048) (i32.const 512)))"
)
_WAT = command(f"(loop $again {_CALL} (br $again))", rest=data(256, b"kv.get") + data(1024, b'{"key":"k"}'))
ATTACK = once(Guest(wat=_WAT, grants=KV, limits={"host_calls": 200}), expect=fails("HOST_CALLS"))
