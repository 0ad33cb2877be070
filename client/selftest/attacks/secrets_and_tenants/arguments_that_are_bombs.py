"""Arguments of host calls that are deep, huge, doubled or not JSON at all, for the node's own parser.

Source: CWE-674, CWE-400. Expected: each answered with kind ``invalid``; the broker's loop is not held up.
"""

from client.selftest.attack import Attack, BreachError, Guest
from client.selftest.guests import ASK_WHAT_IT_IS_TOLD, KV, told
from client.selftest.stage import Stage

_ARGUMENTS = (
    "[" * 60_000, '{"key":' * 5_000, '{"key":"a","key":"b","x":1}', '{"key":' + "9" * 20_000 + "}", "nonsense",
    '{"key":"k","limit":1e999}', '{"key":null}', '"text"', '{"key":"\\ud800"}', '{"key":"k"', "{" * 60_000,
)  # fmt: skip


async def _run(stage: Stage) -> None:
    for argument in _ARGUMENTS:
        seen = await stage.invoke(text=told("kv.get", argument))
        if seen.output is None or not seen.output.startswith('{"error":{"kind":"invalid"'):
            raise BreachError(f"expected kind invalid for {argument[:40]!r}, got {seen.output or seen.message}")


ATTACK = Attack(guests={"guest": Guest(wat=ASK_WHAT_IT_IS_TOLD, grants=KV)}, run=_run)
