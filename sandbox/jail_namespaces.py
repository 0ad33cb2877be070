"""Namespaces of one sandbox process: what is entered before its interpreter starts, and what it tells of that.

Without privileges everything else needs the user namespace first; with them (a node started as root) the user namespace
comes last, when the process has a uid of its own, so that hosts that refuse it to ordinary users still give it here.

The launcher imports this for its 20 ms of life: without ``typing``, ``enum`` and ``dataclasses`` it takes half of that.
"""

import errno
import os

from sandbox.jail_syscalls import checked

_CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
_FLAGS = {
    "mount": 0x00020000,
    "network": 0x40000000,
    "ipc": 0x08000000,
    "uts": 0x04000000,
    "cgroup": 0x02000000,
}
USER = "user"
PID = "pid"
NEEDED = ("mount", "network", "ipc", PID)
"""What the level ``full`` needs beside a user namespace or a uid of its own. ``uts`` and ``cgroup`` hide names only."""


class Namespaces:
    """What was entered, and for the rest the kernel's error numbers."""

    __slots__ = ("entered", "refused")

    def __init__(self) -> None:
        self.entered: set[str] = set()
        self.refused: dict[str, int] = {}

    def note(self, name: str, error: OSError | None) -> None:
        if error is None:
            self.entered.add(name)
            self.refused.pop(name, None)
        else:
            self.entered.discard(name)
            self.refused[name] = error.errno or errno.EIO

    def pack(self) -> str:
        """Return it as one argument of a command line."""
        return ",".join([*sorted(self.entered), *(f"{name}={code}" for name, code in sorted(self.refused.items()))])

    @classmethod
    def unpack(cls, text: str) -> "Namespaces":
        """Read what ``pack`` returned."""
        read = cls()
        for entry in filter(None, text.split(",")):
            name, _, code = entry.partition("=")
            if code:
                read.refused[name] = int(code)
            else:
                read.entered.add(name)
        return read


def enter() -> Namespaces:
    """Enter all that this process may, except the PID namespace, which only a child can enter."""
    reached = Namespaces()
    _enter(reached, "mount")
    if "mount" in reached.refused:
        enter_user(reached)
        _enter(reached, "mount")
    for name in _FLAGS:
        if name != "mount":
            _enter(reached, name)
    return reached


def enter_user(reached: Namespaces) -> None:
    """Enter a user namespace in which this process is root, and outside of which it is who it was."""
    uid, gid = os.geteuid(), os.getegid()
    try:
        checked("unshare", _CLONE_NEWUSER)
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:  # noqa: PTH123 - pathlib costs a launch 5 ms
                file.write(text)
    except OSError as error:
        reached.note(USER, error)
    else:
        reached.note(USER, None)


def enter_user_unmapped(reached: Namespaces) -> None:
    """Enter a user namespace in which this process is nobody. One thread, and no way back."""
    try:
        checked("unshare", _CLONE_NEWUSER)
    except OSError as error:
        reached.note(USER, error)
    else:
        reached.note(USER, None)


def _enter(reached: Namespaces, name: str) -> None:
    try:
        checked("unshare", _FLAGS[name])
    except OSError as error:
        reached.note(name, error)
    else:
        reached.note(name, None)
