"""The compile cache: what comes out is what went in, for this engine and this key, or nothing."""

import asyncio
import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.compile_cache import CacheStatistics, CompileCache, host_features
from sandbox.request import Abi, CompiledCode

KEY = bytes(range(32))
ENGINE = "an engine"
MODULE = hashlib.sha256(b"module").hexdigest()


def compiled(code: bytes = b"machine code", *, module: str = MODULE, abi: Abi = "image") -> CompiledCode:
    return CompiledCode(code=code, abi=abi, module_sha256=module, engine_fingerprint=ENGINE)


@pytest.fixture
def cache(tmp_path: Path) -> CompileCache:
    return CompileCache(tmp_path / "cache", key=KEY, engine_fingerprint=ENGINE)


def entries(directory: Path) -> list[Path]:
    return sorted((directory / "cache").glob("*.compiled"))


def test_what_was_put_comes_out_again(cache: CompileCache) -> None:
    cache.put(compiled())
    assert cache.get(MODULE) == compiled()
    assert cache.get("0" * 64) is None
    assert cache.statistics == CacheStatistics(hits=1, misses=1, refused=0)


def test_the_directory_is_private_and_entries_are_whole(cache: CompileCache, tmp_path: Path) -> None:
    cache.put(compiled())
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700
    assert entries(tmp_path)[0].stat().st_mode & 0o077 == 0
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [entries(tmp_path)[0].name]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_flipped_bit_anywhere_is_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    directory = tmp_path_factory.mktemp("flip")
    cache = CompileCache(directory / "cache", key=KEY, engine_fingerprint=ENGINE)
    cache.put(compiled())
    (path,) = entries(directory)
    raw = bytearray(path.read_bytes())
    bit = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[bit // 8] ^= 1 << bit % 8
    path.write_bytes(raw)
    assert cache.get(MODULE) is None
    assert not path.exists(), "a refused entry is deleted"
    assert cache.statistics.refused == 1


@pytest.mark.parametrize("length", [0, 4, 5, 37, 52, 53, -1])
def test_a_truncated_entry_is_refused(cache: CompileCache, tmp_path: Path, length: int) -> None:
    cache.put(compiled())
    (path,) = entries(tmp_path)
    path.write_bytes(path.read_bytes()[:length])
    assert cache.get(MODULE) is None


def test_an_entry_under_another_name_is_refused(cache: CompileCache, tmp_path: Path) -> None:
    """Good code of one module must not run as another's."""
    other = hashlib.sha256(b"other").hexdigest()
    cache.put(compiled())
    (path,) = entries(tmp_path)
    path.rename(path.with_name(path.name.replace(MODULE, other)))
    assert cache.get(other) is None


def test_another_key_or_engine_reads_nothing(cache: CompileCache, tmp_path: Path) -> None:
    cache.put(compiled())
    assert CompileCache(tmp_path / "cache", key=KEY, engine_fingerprint="newer").get(MODULE) is None
    assert cache.get(MODULE) is not None, "an entry of another engine is not looked at, so not deleted"
    assert CompileCache(tmp_path / "cache", key=b"x" * 32, engine_fingerprint=ENGINE).get(MODULE) is None


def test_an_entry_moved_between_engines_is_refused(tmp_path: Path) -> None:
    ours = CompileCache(tmp_path / "cache", key=KEY, engine_fingerprint=ENGINE)
    theirs = CompileCache(tmp_path / "cache", key=KEY, engine_fingerprint="newer")
    ours.put(compiled())
    (path,) = entries(tmp_path)
    path.rename(theirs._path(MODULE))
    assert theirs.get(MODULE) is None
    assert theirs.statistics.refused == 1


def test_code_for_another_engine_is_not_taken(cache: CompileCache) -> None:
    foreign = CompiledCode(code=b"x", abi="image", module_sha256=MODULE, engine_fingerprint="newer")
    with pytest.raises(ValueError, match="expected code for engine"):
        cache.put(foreign)


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "A" * 64, MODULE + "\n", "g" * 64])
def test_only_digests_become_file_names(cache: CompileCache, name: str) -> None:
    with pytest.raises(ValueError, match="expected a sha256 in hex"):
        cache.get(name)


def test_a_short_key_and_a_shared_directory_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 32 bytes"):
        CompileCache(tmp_path, key=b"short", engine_fingerprint=ENGINE)
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(PermissionError, match="writable by its owner only"):
        CompileCache(shared, key=KEY, engine_fingerprint=ENGINE)


def test_the_least_recently_used_entries_are_evicted(tmp_path: Path) -> None:
    cache = CompileCache(tmp_path / "cache", key=KEY, engine_fingerprint=ENGINE, bytes_max=3_500)
    modules = [hashlib.sha256(bytes([n])).hexdigest() for n in range(4)]
    for age, module in enumerate(modules):
        cache.put(compiled(b"x" * 1_000, module=module))
        os.utime(cache._path(module), (1_000 + age, 1_000 + age))
    assert [cache.get(module) is not None for module in modules] == [False, True, True, True]
    cache.get(modules[1])  # used again, so the third is now the oldest
    cache.put(compiled(b"x" * 1_000, module=modules[0]))
    assert cache.get(modules[1]) is not None
    assert cache.get(modules[2]) is None


def test_an_entry_larger_than_the_cache_stays_until_the_next(tmp_path: Path) -> None:
    cache = CompileCache(tmp_path / "cache", key=KEY, engine_fingerprint=ENGINE, bytes_max=10)
    cache.put(compiled(b"x" * 1_000))
    assert cache.get(MODULE) is not None


def test_collecting_keeps_what_is_named_and_sweeps_what_killed_writers_left(
    cache: CompileCache, tmp_path: Path
) -> None:
    other = hashlib.sha256(b"other").hexdigest()
    cache.put(compiled())
    cache.put(compiled(module=other))
    (tmp_path / "cache" / ".new-abandoned").write_bytes(b"half")
    assert cache.collect(frozenset({MODULE})) == 2
    assert cache.get(MODULE) is not None
    assert cache.get(other) is None


class Compiler:
    """Counts its jobs; the first ones fail if told to."""

    def __init__(self, failures: int = 0) -> None:
        self.jobs = 0
        self.failures = failures
        self.began, self.may_go_on = asyncio.Event(), asyncio.Event()

    async def __call__(self, wasm: bytes) -> CompiledCode:
        self.jobs += 1
        self.began.set()
        await self.may_go_on.wait()
        if self.jobs <= self.failures:
            raise OSError("no")
        return compiled(b"code of " + wasm, module=hashlib.sha256(wasm).hexdigest())


async def test_concurrent_callers_share_one_job(cache: CompileCache) -> None:
    compiler = Compiler()
    compiler.may_go_on.set()
    found = await asyncio.gather(*(cache.compile_with(compiler, b"wasm") for _ in range(5)))
    assert compiler.jobs == 1
    assert {one.code for one in found} == {b"code of wasm"}
    assert not cache._turns


async def test_different_modules_do_not_wait_for_each_other(cache: CompileCache) -> None:
    slow, fast = Compiler(), Compiler()
    fast.may_go_on.set()
    waiting = asyncio.ensure_future(cache.compile_with(slow, b"slow"))
    assert (await cache.compile_with(fast, b"fast")).code == b"code of fast"
    slow.may_go_on.set()
    assert (await waiting).code == b"code of slow"


async def test_when_the_one_that_compiles_is_cancelled_the_next_compiles(cache: CompileCache) -> None:
    compiler = Compiler()
    first = asyncio.ensure_future(cache.compile_with(compiler, b"wasm"))
    await compiler.began.wait()
    second = asyncio.ensure_future(cache.compile_with(compiler, b"wasm"))
    await asyncio.sleep(0)
    first.cancel()
    compiler.may_go_on.set()
    assert (await second).code == b"code of wasm"
    assert compiler.jobs == 2
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_failed_job_is_not_remembered(cache: CompileCache) -> None:
    compiler = Compiler(failures=1)
    compiler.may_go_on.set()
    with pytest.raises(OSError, match="no"):
        await cache.compile_with(compiler, b"wasm")
    assert (await cache.compile_with(compiler, b"wasm")).code == b"code of wasm"


def test_features_of_another_processor_are_another_engine(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("processor: 0\nflags : fpu sse2 avx\n", encoding="ascii")
    other.write_text("processor: 0\nflags : fpu sse2\n", encoding="ascii")
    assert host_features(one) != host_features(other)
    assert host_features(one) == host_features(one)
    assert host_features(tmp_path / "none") != host_features(one)
