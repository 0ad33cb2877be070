"""The launcher: enters namespaces, and has a fresh interpreter begin in them as a child of the launcher's own parent.

Run only by ``sandbox.process.start``, as a process of its own that lives for some 20 ms. It imports little on purpose.
Its arguments: the descriptor that it reports to, the socket to hand on, package and site folder, the module to run, and
the arguments of that.

The sandbox process is made with CLONE_PARENT, so that the supervisor waits for it, kills it, and is what its death
signal hangs on, without anyone in between; it is process 1 of its PID namespace.
"""

import os
import sys

from sandbox.jail_namespaces import CLONE_NEWPID, PID, Namespaces, enter
from sandbox.jail_syscalls import call

_CLONE_PARENT = 0x00008000
_SIGCHLD = 17  # importing signal costs as much as the rest of this
RUN = (
    "import sys\n"
    "sys.path[:0] = sys.argv[1:3]\n"
    "from importlib import import_module\n"
    "import_module(sys.argv[3]).main(int(sys.argv[4]), sys.argv[5:])\n"
)

# -I: no environment, no user site, no current directory. -S: no site hooks; the two folders needed are named instead.
INTERPRETER = (sys.executable, "-I", "-S", "-B", "-X", "utf8")


def main() -> None:
    report, descriptor = int(sys.argv[1]), sys.argv[2]
    package, site, module, *arguments = sys.argv[3:]
    os.set_inheritable(report, False)
    namespaces = enter()
    pid = _branch(namespaces)
    if pid:
        os.write(report, str(pid).encode())
        if pid != os.getpid():
            os._exit(0)
    run = (*INTERPRETER, "-c", RUN, package, site, module, descriptor, namespaces.pack(), *arguments)
    os.execve(sys.executable, run, {})  # noqa: S606 - no shell is the point


def _branch(namespaces: Namespaces) -> int:
    """Return 0 in the new process and its pid in this one; where the kernel has no CLONE_PARENT, our own, and go on."""
    namespaces.note(PID, None)  # before it is known, because the new process has a copy of what is said here
    try:
        return call("clone", _CLONE_PARENT | CLONE_NEWPID | _SIGCHLD, 0, 0, 0, 0)
    except OSError as error:
        namespaces.note(PID, error)
    try:
        return call("clone", _CLONE_PARENT | _SIGCHLD, 0, 0, 0, 0)
    except OSError:
        return os.getpid()
