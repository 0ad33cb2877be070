"""Plays a host that permits less than this one, and says what a sandbox process reaches there.

    python -m tests.isolation.restricted_host RESTRICTION...

It restricts itself, for good, then probes, runs an invocation in a real worker, compiles a module, and prints what came
of it as JSON. Restrictions: ``ordinary-user`` (no capability, another uid) and with it ``no-user-namespaces`` or
``read-only-proc``; ``container`` (a seccomp profile as container engines have: no namespaces, no mounts);
``no-clone-parent``; ``no-landlock``; ``no-seccomp``.
"""

import asyncio
import errno
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from sandbox import jail_seccomp
from sandbox.compiler import compile_module
from sandbox.engine import wat2wasm
from sandbox.jail_credentials import give_up_capabilities
from sandbox.jail_probe import probe
from sandbox.jail_seccomp import Argument, Refused, Rule
from sandbox.jail_syscalls import checked, prctl
from sandbox.supervisor import Worker, WorkerSettings
from tests.isolation import guests

_ORDINARY = 1_000
_READ_ONLY, _REMOUNT, _BIND, _REC = 0x1, 0x20, 0x1000, 0x4000
_NEW_NAMESPACES = 0x7E020000
_CLONE_PARENT = 0x8000
_ALLOW = 0x7FFF0000


def become_ordinary(*, namespaces_max: int | None, proc_is_read_only: bool) -> None:
    """Be uid 1000 in a user namespace of which root is outside; files of root's stay readable."""
    uid, gid = os.geteuid(), os.getegid()
    checked("unshare", 0x10000000)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{_ORDINARY} {uid} 1"), ("gid_map", f"{_ORDINARY} {gid} 1")):
        Path(f"/proc/self/{name}").write_text(text, encoding="ascii")
    if namespaces_max is not None:
        Path("/proc/sys/user/max_user_namespaces").write_text(str(namespaces_max), encoding="ascii")
    if proc_is_read_only:
        checked("unshare", 0x00020000)
        checked("mount", b"/proc", b"/proc", None, _BIND | _REC, None)
        checked("mount", None, b"/proc", None, _BIND | _REMOUNT | _READ_ONLY, None)
    give_up_capabilities()


def refuse(rules: dict[str, Rule]) -> None:
    """Install a filter that lets everything through but what ``rules`` refuse."""
    prctl(38, 1)
    jail_seccomp.install(jail_seccomp.assemble(rules, otherwise=_ALLOW))


def as_a_container() -> None:
    no = Refused(errno.EPERM)
    refuse(
        {
            "unshare": no, "mount": no, "umount2": no, "pivot_root": no, "setns": no, "clone3": Refused(errno.ENOSYS),
            "clone": ((Argument(0, (0,), _NEW_NAMESPACES),), no),
        }
    )  # fmt: skip


def has_mapped_code(pid: int) -> bool:
    return "memfd:compiled" in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8")


def without_clone_parent() -> None:
    """As kernels that are not Linux."""
    with_parent = (Argument(0, (0,), _CLONE_PARENT),)
    refuse({"clone": (with_parent, Refused(errno.EINVAL)), "clone3": Refused(errno.ENOSYS)})


async def examine() -> dict[str, object]:
    worker_, compiler = await probe("worker"), await probe("compiler")
    worker = await Worker.start(WorkerSettings(slots=5))
    try:
        outcome = await guests.run(worker, guests.ECHO, data=b"works")
        level, missing = worker.level, worker.missing
        mapped = has_mapped_code(worker.pid) if os.geteuid() == 0 else None
    finally:
        await worker.stop()
    code = await compile_module(wat2wasm('(module (memory (export "memory") 1) (func (export "_start")))'))
    return {
        "probed": worker_.level,
        "compiler": compiler.level,
        "level": level,
        "missing": missing,
        "descriptors": worker_.descriptors,
        "output": (outcome.output or b"").decode(),
        "code": len(code.code),
        "mapped": mapped,
    }


def restrict(restrictions: Sequence[str]) -> None:
    """Restrict this process and what it starts, for good."""
    if "ordinary-user" in restrictions:
        become_ordinary(
            namespaces_max=0 if "no-user-namespaces" in restrictions else None,
            proc_is_read_only="read-only-proc" in restrictions,
        )
    if "container" in restrictions:
        as_a_container()
    if "no-clone-parent" in restrictions:
        without_clone_parent()
    if "no-landlock" in restrictions:
        refuse({"landlock_create_ruleset": Refused(errno.ENOSYS)})
    if "no-seccomp" in restrictions:
        refuse({"seccomp": Refused(errno.EINVAL)})


if __name__ == "__main__":
    restrict(sys.argv[1:])
    sys.stdout.write(json.dumps(asyncio.run(examine())))
