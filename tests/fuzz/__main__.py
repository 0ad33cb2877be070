"""``make fuzz``: each target in a process of its own for its share of the time; a crash stays in the corpus.

As many at once as there are processors.

Guided by coverage with atheris (libFuzzer) where there is a wheel for this Python; elsewhere by hypothesis' mutations.
Exit status 1 when anything was found. Each finding lies in ``tests/fuzz/corpus/<target>/`` afterwards, where ``make
test`` replays it for ever: commit it together with the repair, and say in ``corpus/reasons.toml`` what it broke.
"""

import argparse
import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
WORKING = Path(__file__).parents[2] / "build" / "fuzz"
_INSIDE = "--inside"
_GRACE_S = 180
_INPUT_BYTES_MAX = 16_384
_MEMORY_MB_MAX = 2_048
_CALL_S_MAX = 10


def main() -> int:
    """Return the exit status."""
    if sys.argv[1:2] == [_INSIDE]:  # before anything of ours is imported: coverage is put in while importing
        return _inside(sys.argv[2], sys.argv[3:])
    from tests.fuzz.targets import TARGETS

    parser = argparse.ArgumentParser(prog="tests.fuzz", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=int, default=60, help="for all targets together")
    parser.add_argument("--target", action="append", choices=sorted(TARGETS), help="only this one; may be repeated")
    arguments = parser.parse_args()
    chosen = arguments.target or sorted(TARGETS)
    share_s = max(2, arguments.seconds // len(chosen))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = dict(zip(chosen, pool.map(lambda target: _fuzz(target, share_s), chosen), strict=True))
    for target, crashes in found.items():
        print(f"{target}: {', '.join(crashes) or 'nothing found'}")
    return 1 if any(found.values()) else 0


def _fuzz(target: str, seconds: int) -> list[str]:
    """Fuzz one target; return the names of what was found."""
    from tests.fuzz.seeds import kept as in_corpus
    from tests.fuzz.seeds import seeds

    working = WORKING / target
    working.mkdir(parents=True, exist_ok=True)
    for each in (*seeds()[target], *in_corpus(target).values()):
        (working / hashlib.sha1(each, usedforsecurity=False).hexdigest()).write_bytes(each)
    kept = CORPUS / target
    with tempfile.TemporaryDirectory() as directory:
        child = subprocess.run(
            [
                sys.executable,
                "-m",
                "tests.fuzz",
                _INSIDE,
                target,
                f"-max_total_time={seconds}",
                f"-artifact_prefix={directory}/",
                f"-max_len={_INPUT_BYTES_MAX}",
                f"-timeout={_CALL_S_MAX}",
                f"-rss_limit_mb={_MEMORY_MB_MAX}",
                str(working),
            ],
            timeout=seconds + _GRACE_S,
            capture_output=True,
            check=False,
        )
        names = [_keep(path, kept) for path in sorted(Path(directory).iterdir())]
    if names or child.returncode != 0:
        for said in (child.stdout, child.stderr):  # the exception, then what libFuzzer makes of it
            sys.stderr.write(said.decode("utf-8", "replace")[-2_000:])
    return names or ([f"exit status {child.returncode}"] if child.returncode else [])


def _keep(crash: Path, kept: Path) -> str:
    """Move a crash into the corpus, under its digest."""
    kept.mkdir(parents=True, exist_ok=True)
    data = crash.read_bytes()
    name = f"{hashlib.sha256(data).hexdigest()[:16]}.bin"
    (kept / name).write_bytes(data)
    return name


def _inside(target: str, flags: Sequence[str]) -> int:
    if importlib.util.find_spec("atheris") is not None:
        return _with_atheris(target, flags)
    return _with_mutations(target, flags)


def _with_atheris(target: str, flags: Sequence[str]) -> int:
    import atheris

    with atheris.instrument_imports(include=["sandbox", "templates", "data_plane"]):
        from tests.fuzz.targets import TARGETS
    atheris.Setup([target, *flags], TARGETS[target])
    atheris.Fuzz()
    return 0


def _with_mutations(target: str, flags: Sequence[str]) -> int:
    """Without coverage: hypothesis changes the seeds until the time is over."""
    from hypothesis import HealthCheck, Phase, given, settings

    from tests.fuzz.mutations import mutated
    from tests.fuzz.seeds import seeds
    from tests.fuzz.targets import TARGETS

    options = dict(flag.removeprefix("-").split("=", 1) for flag in flags if "=" in flag)
    until = time.monotonic() + float(options["max_total_time"])
    last = b""

    @settings(
        max_examples=200,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    @given(mutated(seeds()[target]))
    def attempt(data: bytes) -> None:
        nonlocal last
        last = data
        TARGETS[target](data)

    while time.monotonic() < until:
        try:
            attempt()
        except Exception as error:
            Path(options["artifact_prefix"], "crash").write_bytes(last)
            print(f"{type(error).__name__}: {error}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
