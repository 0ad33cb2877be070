"""Host calls of an interface that was not granted, without end: each is refused at once.

Source: CWE-770. Expected: HOST_CALLS: a refusal counts like an answer.
"""

from client.selftest.attack import Guest, fails, once
from client.selftest.guests import command, data

_CALL = (
    "(drop (call $call (i32.const 256) (i32.const 6) (i32.const 1024) (i32.const 2) (i32.const 2048) (i32.const 512)))"
)
_WAT = command(f"(loop $again {_CALL} (br $again))", rest=data(256, b"kv.get") + data(1024, b"{}"))
ATTACK = once(Guest(wat=_WAT, grants={"agents": ["attacks/ordinary"]}), expect=fails("HOST_CALLS"))
