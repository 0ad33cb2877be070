"""How far a sandbox process is locked away on this host: found by locking one away."""

import asyncio
import json
import os
import socket
from collections.abc import Sequence
from typing import Final

from sandbox import jail, process

_TIMEOUT_S: Final = 20.0
_ANSWER_BYTES_MAX: Final = 1 << 16

REMEDIES: Final = {
    "namespaces": "allow unprivileged user namespaces (sysctl user.max_user_namespaces, and on Debian and Ubuntu "
    "kernel.unprivileged_userns_clone=1 and kernel.apparmor_restrict_unprivileged_userns=0), or start nodes as root",
    "Landlock": "boot with landlock in the kernel's lsm= list (Linux 5.13 or newer), and let the container's seccomp "
    "profile pass landlock_*",
    "seccomp": "let the container's seccomp profile pass seccomp(2)",
}
"""What mends what is missing, by the beginning of its text."""


async def probe(role: process.Role = "worker") -> process.Confinement:
    """Start a sandbox process that does nothing but lock itself away, and return what it reached.

    Raises:
        process.ProcessError: it could not be started, or ended without an answer.
    """
    ours, theirs = socket.socketpair()
    with ours:
        ours.setblocking(False)
        with theirs:
            child = await process.start("sandbox.jail_probe", theirs, (role,))
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                answer = await asyncio.get_running_loop().sock_recv(ours, _ANSWER_BYTES_MAX)
                status = await child.wait()
        except TimeoutError:
            raise process.ProcessError(f"expected a sandbox process within {_TIMEOUT_S} s, got none") from None
        finally:
            if child.poll() is None:
                child.send_signal(9)
                await child.wait()
    if not answer:
        raise process.ProcessError(f"expected an answer of a sandbox process, got its end with status {status}")
    facts = json.loads(answer)
    return process.Confinement(level=facts["level"], missing=tuple(facts["missing"]), descriptors=facts["descriptors"])


def remedy(missing: Sequence[str]) -> str:
    """Return what would mend what is missing, empty when nothing is known to."""
    found: list[str] = []
    for text in missing:
        found += [REMEDIES[name] for name in REMEDIES if text.startswith(name)]
    return "; ".join(dict.fromkeys(found))


def main(descriptor: int, arguments: Sequence[str]) -> None:
    """Run in the sandbox process. ``arguments``: the launcher's, the role."""
    jail.prepare()
    launched, role = arguments
    with socket.socket(fileno=descriptor) as sock:
        try:
            reached = jail.confine(
                jail.ProcessLimits(), launched=launched, role="worker" if role == "worker" else "compiler"
            )
        except process.ProcessError:
            os._exit(1)
        facts = {"level": reached.level, "missing": reached.missing, "descriptors": reached.descriptors}
        sock.sendall(json.dumps(facts).encode())
        os._exit(0)
