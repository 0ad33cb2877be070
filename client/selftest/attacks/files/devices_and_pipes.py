"""A pipe, a socket and a device in an export: opening one would wait for ever, or reach the kernel.

Source: CWE-67. Expected: none is opened, and nobody waits.
"""

from client.selftest.attack import Attack
from client.selftest.exports import MINE
from client.selftest.file_attempts import prober, refused, tried
from client.selftest.stage import Stage


async def _run(stage: Stage) -> None:
    (listed,) = await tried(stage, ["sorted(os.listdir('/mine'))"])
    names = [name for name in ("pipe", "socket", "device") if f"'{name}'" in listed]
    stage.require({"pipe", "socket"} <= set(names), f"expected a pipe and a socket to be there, got {listed}")
    attempts = [f"open('/mine/{name}', {mode!r})" for name in names for mode in ("rb", "wb", "r+b")]
    attempts += [f"os.open('/mine/{name}', os.O_RDONLY | os.O_NONBLOCK)" for name in names]
    await refused(stage, ("EACCES", "EROFS", "EINVAL", "ENOTSUP", "EPERM"), attempts)


ATTACK = Attack(guests={"guest": prober(MINE)}, run=_run)
