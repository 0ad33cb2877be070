"""Hostile and ordinary guests of both ABIs with files: what they see, what they are refused, what they cost others."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from functools import cache
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from sandbox.core_module import CoreModule
from sandbox.engine import Engine, fingerprint
from sandbox.limits import SandboxLimits
from sandbox.outcome import FailureKind, Outcome
from sandbox.request import Abi, CompiledCode, InvocationRequest
from sandbox.supervisor import Worker, WorkerSettings
from tests.c_modules import c_module
from tests.file_world import Files, files
from tests.images import compiled_image
from tests.isolation import guests

pytestmark = pytest.mark.toolchain

FILES = frozenset({"agentfactory:runtime/files@0.1.0"})
PRELUDE = r"""
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <wasi/api.h>
#define SAY(what) do { errno = 0; long n_ = (long)(what); puts(n_ < 0 ? strerror(errno) : "done"); } while (0)
static char block[300000];
"""


class Served:
    """Answers file requests from a session, in a thread as a node does; says what was asked."""

    def __init__(self, guest: Files) -> None:
        self.guest = guest
        self.asked: list[str] = []

    async def call(self, interface: str, function: str, argument: bytes) -> bytes:
        self.asked.append(f"{interface}.{function}")
        return await asyncio.to_thread(self.guest.session.perform, function, argument)


@pytest.fixture
async def worker() -> AsyncIterator[Worker]:
    worker = await Worker.start(WorkerSettings(slots=16))
    try:
        yield worker
    finally:
        await worker.stop()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    data, scratch = tmp_path / "data", tmp_path / "scratch"
    (data / "sub").mkdir(parents=True)
    scratch.mkdir()
    (data / "hello").write_text("hello\n")
    (data / "big").write_bytes(b"".join(index.to_bytes(4, "big") for index in range(250_000)))
    (data / "link").symlink_to("/etc/passwd")
    with files(data, scratch) as guest:
        yield Served(guest)


@cache
def command(body: str) -> CompiledCode:
    wasm = c_module(f"{PRELUDE}int main(void) {{ {body} return 0; }}")
    code = CoreModule.compile(Engine(), wasm).serialize()
    return CompiledCode(code=code, abi="command", module_sha256="0" * 64, engine_fingerprint=fingerprint())


async def run(
    worker: Worker,
    code: CompiledCode,
    served: Served,
    *,
    source: str | None = None,
    granted: frozenset[str] = FILES,
    **limits: int,
) -> Outcome:
    abi: Abi = "command" if source is None else "image"
    await worker.load(str(id(code)), code)
    request = InvocationRequest(
        code_id=str(id(code)),
        abi=abi,
        source=None if source is None else dedent(source).encode(),
        granted=granted,
        limits=SandboxLimits(**limits),
    )
    return await worker.invoke(request, served)


async def lines(worker: Worker, served: Served, body: str, **more: Any) -> list[str]:
    outcome = await run(worker, command(body), served, **more)
    assert outcome.output is not None, outcome.failure
    return outcome.output.decode().splitlines()


async def python(worker: Worker, served: Served, source: str, **more: Any) -> Any:
    outcome = await run(worker, compiled_image(), served, source=source, **more)
    assert outcome.output is not None, (outcome.failure, outcome.logs)
    return json.loads(outcome.output)


async def test_c_reads_a_file_whole_and_in_pieces(worker: Worker, served: Served) -> None:
    said = await lines(
        worker,
        served,
        r"""
        FILE *file = fopen("/data/big", "rb"); long total = 0, wrong = 0, got;
        unsigned char four[4];
        while ((got = fread(four, 1, 4, file)) == 4) {
          unsigned value = four[0] << 24 | four[1] << 16 | four[2] << 8 | four[3];
          if (value != total++) wrong++;
        }
        printf("%ld %ld\n", total, wrong);
        int fd = open("/data/big", O_RDONLY); char piece[8];
        lseek(fd, -8, SEEK_END); got = read(fd, piece, 8);
        printf("%ld %d %d\n", got, piece[1], (unsigned char)piece[3]);
        printf("%ld %ld\n", (long)pread(fd, piece, 8, 999996), (long)pread(fd, piece, 8, 1000000));
        """,
    )
    assert said == ["250000 0", "8 3 142", "4 0"]
    assert served.asked.count("files.read") < 15, "expected a megabyte to be read in blocks"


async def test_descriptors_are_not_confused_by_renumbering(worker: Worker, served: Served) -> None:
    said = await lines(
        worker,
        served,
        r"""
        int a = open("/data/hello", O_RDONLY), b = open("/scratch/out", O_CREAT | O_RDWR, 0600);
        printf("%d\n", __wasi_fd_renumber(a, b));
        SAY(read(a, block, 5)); SAY(write(b, "x", 1)); SAY(read(b, block, 5));
        printf("%d %d %d\n", __wasi_fd_renumber(b, 99), __wasi_fd_renumber(99, b), __wasi_fd_renumber(b, 1));
        printf("%d\n", __wasi_fd_renumber(3, b));
        SAY(open("/data/hello", O_RDONLY)); SAY(read(b, block, 5));
        printf("%d %d\n", __wasi_fd_close(b), __wasi_fd_close(b));
        SAY(open("/scratch/../data/hello", O_RDONLY));
        """,
    )
    assert said[0] == "0"
    assert said[1:4] == ["Bad file descriptor", "Bad file descriptor", "done"]
    assert said[4] == "8 8 8"
    assert "passwd" not in "".join(said)
    assert said[-1] == "Operation not permitted"


async def test_a_read_only_file_is_not_truncated_by_any_call(worker: Worker, served: Served, tmp_path: Path) -> None:
    said = await lines(
        worker,
        served,
        r"""
        int fd = open("/data/hello", O_RDONLY);
        SAY(ftruncate(fd, 0)); SAY(write(fd, "x", 1)); SAY(pwrite(fd, "x", 1, 0));
        SAY(open("/data/hello", O_RDONLY | O_TRUNC)); SAY(open("/data/hello", O_WRONLY)); SAY(unlink("/data/hello"));
        SAY(rename("/data/hello", "/scratch/hello")); SAY(link("/data/hello", "/scratch/hello"));
        SAY(rename("/scratch/none", "/data/hello"));
        __wasi_fd_t opened;
        printf("%d\n", __wasi_path_open(3, 0, "hello", 0, 64 | 2, 64 | 2, 0, &opened));
        printf("%d\n", __wasi_path_open(4, 0, "hello", 0, 64 | 2, 64 | 2, 0, &opened));
        printf("%d\n", __wasi_fd_fdstat_set_rights(fd, 64, 64));
        """,
    )
    assert "done" not in said
    assert (tmp_path / "data" / "hello").read_text() == "hello\n"


async def test_pointers_outside_of_memory_and_huge_counts_are_traps_or_refusals(worker: Worker, served: Served) -> None:
    for body in (
        "__wasi_fd_read(file, (__wasi_iovec_t *)0xfffffff0, 1, &n);",
        "__wasi_iovec_t v = {(uint8_t *)0xffffff00, 4096}; __wasi_fd_read(file, &v, 1, &n);",
        "__wasi_iovec_t v = {(uint8_t *)block, 4}; __wasi_fd_read(file, &v, 1, (__wasi_size_t *)0xfffffffe);",
        "__wasi_fd_readdir(folder, (uint8_t *)0xffffff00, 4096, 0, &n);",
        '__wasi_path_filestat_get(4, 0, "hello", (void *)0xfffffff0);',
        "__wasi_fd_seek(file, 0, 2, (void *)0xfffffffc);",
    ):
        opened = 'int file = open("/data/hello", O_RDONLY), folder = open("/data/sub", O_RDONLY); __wasi_size_t n;'
        outcome = await run(worker, command(opened + body), served)
        assert outcome.failure is not None
        assert outcome.failure.kind is FailureKind.TRAP
    said = await lines(
        worker,
        served,
        r"""
        int fd = open("/data/big", O_RDONLY); __wasi_size_t n; static __wasi_iovec_t many[2000];
        for (int i = 0; i < 2000; i++) { many[i].buf = (uint8_t *)block; many[i].buf_len = sizeof block; }
        printf("%d\n", __wasi_fd_read(fd, many, 2000, &n));
        printf("%d %d\n", __wasi_fd_read(fd, many, 1000, &n), n <= 262144);
        printf("%d\n", __wasi_fd_pread(fd, many, 1, 0xffffffffffffffffull, &n));
        printf("%d\n", __wasi_fd_seek(fd, -1, 0, (void *)block));
        """,
    )
    assert said == ["28", "0 1", "28", "28"]


async def test_a_guest_cannot_name_the_interface_of_files_itself(worker: Worker, served: Served) -> None:
    for op in (b"files.mounts", b"files.open", b"files.read"):
        await worker.load("ask", guests.compiled(guests.ask(op, b"\0\0")))
        request = InvocationRequest(code_id="ask", abi="command", granted=FILES)
        outcome = await worker.invoke(request, served)
        assert b'"kind":"denied"' in (outcome.output or b"")
        await worker.drop("ask")
    assert served.asked == []


@pytest.mark.parametrize("abi", ["command", "image"])
async def test_without_a_grant_there_is_no_directory_and_nothing_is_asked(
    worker: Worker, served: Served, abi: str
) -> None:
    if abi == "command":
        assert await lines(worker, served, 'SAY(open("/data/hello", O_RDONLY));', granted=frozenset()) == [
            "No such file or directory"
        ]
    else:
        source = """
            import os
            def process(text):
                return [os.path.exists("/data"), os.path.exists("/etc")]
        """
        assert await python(worker, served, source, granted=frozenset()) == [False, False]
    assert served.asked == []


async def test_file_calls_are_bounded_and_are_not_host_calls(worker: Worker, served: Served) -> None:
    hammer = 'struct stat found; for (;;) stat("/data/hello", &found);'
    outcome = await run(worker, command(hammer), served, wasi_calls=500, host_calls=0)
    assert outcome.failure is not None
    assert outcome.failure.kind is FailureKind.HOST_CALLS
    assert outcome.usage.host_calls == 0
    assert len(served.asked) <= 500


async def test_a_guest_that_hammers_files_does_not_hold_up_its_neighbours(worker: Worker, served: Served) -> None:
    hammer = 'struct stat found; for (;;) { stat("/data/hello", &found); }'
    hammering = asyncio.ensure_future(run(worker, command(hammer), served, wall_ms=3_000))
    await guests.until_in_flight(worker, 1)
    for _ in range(20):
        assert (await guests.run(worker, guests.ECHO, data=b"still here")).output == b"still here"
    assert not hammering.done()
    outcome = await hammering
    assert outcome.failure is not None
    assert outcome.failure.kind is FailureKind.DEADLINE


async def test_python_uses_files_as_it_is_used_to(worker: Worker, served: Served) -> None:
    source = """
        import os, shutil
        from pathlib import Path

        def refused(call, *arguments):
            try:
                call(*arguments)
            except OSError as error:
                return [type(error).__name__, os.strerror(error.errno)]

        def process(text):
            big = Path("/data/big").read_bytes()
            folder = Path("/scratch/a/b")
            folder.mkdir(parents=True)
            (folder / "f").write_text("hello world")
            with open(folder / "f", "r+") as file:
                file.seek(6)
                file.write("there")
                file.truncate()
                file.seek(0)
                whole = file.read()
            with open(folder / "f", "a") as file:
                file.write("!")
            os.rename(folder / "f", "/scratch/g")
            os.utime("/scratch/g", (1, 2))
            answer = {
                "big": [len(big), int.from_bytes(big[-4:], "big")],
                "whole": whole,
                "appended": Path("/scratch/g").read_text(),
                "time": os.stat("/scratch/g").st_mtime,
                "listed": sorted(os.listdir("/data")),
                "walked": sorted(name for _, folders, files in os.walk("/scratch") for name in folders + files),
                "kinds": sorted((each.name, each.is_dir(), each.is_symlink()) for each in os.scandir("/data")),
                "glob": [str(path) for path in Path("/data").glob("he*")],
                "refused": [
                    refused(open, "/data/none"),
                    refused(open, "/data/hello", "w"),
                    refused(open, "/data/link"),
                    refused(os.mkdir, "/scratch/a"),
                    refused(os.rmdir, "/scratch/a"),
                    refused(os.listdir, "/scratch/g"),
                    refused(open, "/scratch/a"),
                    refused(os.rename, "/scratch/g", "/data/g"),
                    refused(os.symlink, "/etc", "/scratch/etc"),
                    refused(os.link, "/scratch/g", "/scratch/h"),
                    refused(open, "/scratch/sparse", "xb") or refused(os.truncate, "/scratch/sparse", 1 << 40),
                    refused(open, "/absent/x"),
                    refused(open, "/data/../x"),
                    refused(os.stat, "/scratch/" + "x" * 300),
                ],
            }
            shutil.rmtree("/scratch/a")
            answer["left"] = sorted(os.listdir("/scratch"))
            return answer
    """
    assert await python(worker, served, source) == {
        "big": [1_000_000, 249_999],
        "whole": "hello there",
        "appended": "hello there!",
        "time": 2.0,
        "listed": ["big", "hello", "link", "sub"],
        "walked": ["a", "b", "g"],
        "kinds": [["big", False, False], ["hello", False, False], ["link", False, True], ["sub", True, False]],
        "glob": ["/data/hello"],
        "refused": [
            ["FileNotFoundError", "No such file or directory"],
            ["OSError", "Read-only file system"],
            ["OSError", "Symbolic link loop"],
            ["FileExistsError", "File exists"],
            ["OSError", "Directory not empty"],
            ["NotADirectoryError", "Not a directory"],
            ["IsADirectoryError", "Is a directory"],
            ["OSError", "Cross-device link"],
            ["PermissionError", "Operation not permitted"],
            ["PermissionError", "Operation not permitted"],
            ["OSError", "Quota exceeded"],
            ["PermissionError", "Permission denied"],
            ["PermissionError", "Operation not permitted"],
            ["OSError", "Filename too long"],
        ],
        "left": ["g", "sparse"],
    }


async def test_a_component_that_floods_itself_with_handles_of_files_is_stopped(worker: Worker, served: Served) -> None:
    source = """
        def process(text):
            held = []
            while True:
                held.append(open("/data/hello"))
    """
    outcome = await run(worker, compiled_image(), served, source=source)
    assert outcome.failure is not None
    assert outcome.failure.kind in {FailureKind.GUEST_ERROR, FailureKind.HOST_CALLS}
    assert await python(worker, served, "def process(text): return [1]") == [1]


async def test_an_answer_that_is_none_is_an_error_of_input_and_output(worker: Worker) -> None:
    class Lying:
        async def call(self, _interface: str, function: str, _argument: bytes) -> bytes:
            mount = b"\0\0" + b"\1\0\0\0\1\5\0/data"
            return {"mounts": mount, "open": b"\0\0\1\0\0\0\4", "read": b"\0\0" + b"x" * 300_000}.get(function, b"{}")

    await worker.load(
        "lied", command('SAY(read(open("/data/x", O_RDONLY), block, 10)); SAY(open("/data/x/", 0) - 99);')
    )
    outcome = await worker.invoke(InvocationRequest(code_id="lied", abi="command", granted=FILES), Lying())
    assert outcome.output is not None
    assert outcome.output.startswith(b"I/O error\n")
