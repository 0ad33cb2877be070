"""The fuzz targets with what hypothesis builds, for a moment, in every run of the tests; `make fuzz` takes longer."""

import asyncio
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandbox.compiler import CompilerError
from sandbox.inspection import inspect
from tests.fuzz.mutations import mutated
from tests.fuzz.seeds import seeds
from tests.fuzz.targets import TARGETS

SEEDS = seeds()
QUICK = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
JUDGED_WITHIN_S = 30.0


@pytest.mark.parametrize("name", sorted(TARGETS))
@QUICK
@given(data=st.data())
def test_a_changed_input_keeps_the_promise(name: str, data: st.DataObject) -> None:
    TARGETS[name](data.draw(mutated(SEEDS[name])))


@pytest.mark.parametrize("name", sorted(TARGETS))
@QUICK
@given(data=st.binary(max_size=200))
def test_any_bytes_keep_the_promise(name: str, data: bytes) -> None:
    TARGETS[name](data)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=mutated(SEEDS["modules"]))
def test_the_compiler_process_answers_facts_or_a_typed_refusal_in_time(data: bytes) -> None:
    started = time.monotonic()
    try:
        facts = asyncio.run(inspect(data))
    except CompilerError as error:
        assert error.code in {"NOT_WASM", "COMPILED_CODE", "MODULE_INVALID"}, error
    else:
        assert facts.length == len(data)
    assert time.monotonic() - started < JUDGED_WITHIN_S


def test_a_target_that_breaks_its_promise_is_found() -> None:
    def broken(data: bytes) -> None:
        assert b"\xff\xff\xff\xff" not in data

    @settings(max_examples=2_000, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(data=mutated(SEEDS["documents"]))
    def attempt(data: bytes) -> None:
        broken(data)

    with pytest.raises(AssertionError):
        attempt()
