"""Host calls of operations that only look like some: other interfaces, attributes, NUL, long names.

Source: CWE-20. Expected: each answered with a typed error; none reaches a method of the host.
"""

from client.selftest.attack import Attack, BreachError, Guest
from client.selftest.guests import ASK_WHAT_IT_IS_TOLD, KV, told
from client.selftest.stage import Stage

_OPERATIONS = (
    "kv.__class__", "kv._scope", "os.system", "kv.get\0", "kv", ".", "kv.get.get", "KV.GET", "agents.invoke",
    "log.log", "x" * 5_000, "kv .get", "kv.g\u0435t", "files.open", "kv.get\n",
)  # fmt: skip


async def _run(stage: Stage) -> None:
    for operation in _OPERATIONS:
        seen = await stage.invoke(text=told(operation, '{"key":"k"}'))
        if seen.output is None or not seen.output.startswith('{"error":{"kind":"'):
            raise BreachError(f"expected a typed error for {operation[:40]!r}, got {seen.output or seen.message}")


ATTACK = Attack(guests={"guest": Guest(wat=ASK_WHAT_IT_IS_TOLD, grants=KV)}, run=_run)
