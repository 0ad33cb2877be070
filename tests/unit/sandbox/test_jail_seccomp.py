"""The filters, decided by an interpreter of their instructions: every call has the verdict that its rule says."""

import errno
import os
import struct

import pytest

from sandbox.jail_seccomp import Argument, Instruction, Refused, assemble, compiler_rules, worker_rules
from sandbox.jail_syscalls import number_of

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
KILL, ALLOW = 0x80000000, 0x7FFF0000
RW, RX, RWX = 3, 5, 7
NOBODY = 0xFFFFFFFFFFFFFFFF
ANONYMOUS = 0x22
PAGE = os.sysconf("SC_PAGE_SIZE")


def refused(code: int) -> int:
    return 0x00050000 | code


def verdict(program: list[Instruction], architecture: int, number: int, arguments: tuple[int, ...] = ()) -> int:
    """Run a filter as the kernel does, on ``struct seccomp_data``: number, architecture, where, six arguments."""
    data = struct.pack("=iIQ6Q", number, architecture, 0, *(*arguments, *(0,) * 6)[:6])
    place = accumulator = 0
    while True:
        code, on_true, on_false, constant = program[place]
        place += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, constant)
        elif code == 0x54:
            accumulator &= constant
        elif code in {0x15, 0x35}:
            holds = accumulator == constant if code == 0x15 else accumulator >= constant
            place += on_true if holds else on_false
        else:
            assert code == 0x06
            return constant


CASES: list[tuple[str, str, tuple[int, ...], int]] = [
    ("worker", "read", (), ALLOW),
    ("worker", "sendto", (), ALLOW),
    ("worker", "openat", (0, 0, os.O_RDONLY | os.O_CLOEXEC), ALLOW),
    ("worker", "openat", (0, 0, os.O_RDONLY), KILL),
    ("worker", "openat", (0, 0, os.O_RDWR | os.O_CLOEXEC), KILL),
    ("worker", "openat", (0, 0, os.O_PATH | os.O_CLOEXEC), KILL),
    ("copying worker", "openat", (0, 0, os.O_RDONLY | os.O_CLOEXEC), refused(errno.EACCES)),
    ("copying worker", "statx", (), refused(errno.EACCES)),
    ("worker", "mmap", (0, 99 * PAGE, RW, ANONYMOUS, NOBODY), ALLOW),
    ("worker", "mmap", (0, 99 * PAGE, RX, ANONYMOUS, NOBODY), ALLOW),
    ("worker", "mmap", (0, PAGE, RWX, ANONYMOUS, NOBODY), ALLOW),
    ("worker", "mmap", (0, 2 * PAGE, RWX, ANONYMOUS, NOBODY), KILL),
    ("worker", "mmap", (0, PAGE, RWX, 0x21, NOBODY), KILL),
    ("worker", "mmap", (0, PAGE, RWX, ANONYMOUS, 5), KILL),
    ("worker", "mprotect", (0, PAGE, RX), ALLOW),
    ("worker", "mprotect", (0, PAGE, RWX), KILL),
    ("worker", "fcntl", (3, 1033), ALLOW),
    ("worker", "fcntl", (3, 8), KILL),
    ("worker", "ioctl", (0, 0x5412), refused(errno.ENOTTY)),
    ("worker", "tgkill", (os.getpid(), os.getpid(), 6), ALLOW),
    ("worker", "tgkill", (os.getpid(), os.getpid(), 9), KILL),
    ("worker", "tgkill", (1, 1, 6), KILL),
    ("worker", "clone", (0x3D0F00,), KILL),
    ("worker", "clone3", (), KILL),
    ("worker", "prctl", (0x53564D41,), ALLOW),
    ("worker", "prctl", (4, 1), KILL),
    ("worker", "memfd_create", (0, 3), ALLOW),
    ("worker", "memfd_create", (0, 0x10), KILL),
    ("worker", "unshare", (), KILL),
    ("worker", "mount", (), KILL),
    ("worker", "seccomp", (), KILL),
    ("compiler", "clone", (0x3D0F00,), ALLOW),
    ("compiler", "clone", (0x11,), KILL),
    ("compiler", "clone", (0x3D0F00 | 0x10000000,), KILL),
    ("compiler", "clone3", (), refused(errno.ENOSYS)),
    ("compiler", "openat", (0, 0, os.O_RDONLY | os.O_CLOEXEC), refused(errno.EACCES)),
    ("compiler", "recvmsg", (), KILL),
]  # fmt: skip
RULES = {
    "worker": worker_rules(can_open=True),
    "copying worker": worker_rules(can_open=False),
    "compiler": compiler_rules(),
}


@pytest.mark.parametrize("machine", ARCHITECTURES)
@pytest.mark.parametrize(("role", "name", "arguments", "expected"), CASES)
def test_a_call_has_the_verdict_of_its_rule(
    machine: str, role: str, name: str, arguments: tuple[int, ...], expected: int
) -> None:
    program = assemble(RULES[role], machine=machine)
    assert verdict(program, ARCHITECTURES[machine], number_of(name, machine), arguments) == expected


@pytest.mark.parametrize("role", RULES)
@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_everything_that_is_not_listed_is_killed(machine: str, role: str) -> None:
    program = assemble(RULES[role], machine=machine)
    listed = {number_of(name, machine) for name in RULES[role]}
    for number in {*range(1_024)} - listed:
        assert verdict(program, ARCHITECTURES[machine], number) == KILL, number
    assert len(program) < 4_096  # BPF_MAXINSNS


@pytest.mark.parametrize("number", [0, 1, 0x40000000, 0x40000001, -1])
def test_other_architectures_and_x32_are_killed(number: int) -> None:
    program = assemble(RULES["worker"], machine="x86_64")
    for architecture in (0x40000003, ARCHITECTURES["aarch64"], 0):  # i386 first
        assert verdict(program, architecture, number) == KILL
    if number not in {0, 1}:
        assert verdict(program, ARCHITECTURES["x86_64"], number) == KILL


def test_alternatives_and_conjunctions_are_what_they_say() -> None:
    rule = ((Argument(0, (1, 2, 3)), Argument(1, (4,), 0xFF)), (Argument(5, (9,)),), Refused(errno.EPERM))
    program = assemble({"read": rule}, machine="x86_64")

    def of(*arguments: int) -> int:
        return verdict(program, ARCHITECTURES["x86_64"], 0, arguments)

    assert [of(1, 4), of(2, 0x104), of(3, 4)] == [ALLOW] * 3
    assert [of(4, 4), of(1, 5), of(0, 4)] == [refused(errno.EPERM)] * 3
    assert of(0, 0, 0, 0, 0, 9) == ALLOW


def test_a_machine_whose_numbers_are_not_known_is_an_error() -> None:
    with pytest.raises(OSError, match="riscv64"):
        assemble({}, machine="riscv64")
