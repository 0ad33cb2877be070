"""Answers given before: for their own tenant only, for a while, within bounds."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_plane.broker import llm_cache
from data_plane.broker.llm_answer import LlmAnswer
from data_plane.broker.llm_cache import ENTRY_BYTES, AnswerCache, CacheBounds, size_of

ANSWER = LlmAnswer(text="hello", model="m", finish_reason="stop", usage=None)


class Now:
    def __init__(self) -> None:
        self.s = 100.0

    def __call__(self) -> float:
        return self.s


def cache(now: Now | None = None, **changes: int) -> AnswerCache:
    bounds = CacheBounds(ttl_s=60, entries_max=3, bytes_max=10_000)
    return AnswerCache(replace(bounds, **changes), now or Now())


def test_an_answer_is_given_again_to_its_own_tenant_only() -> None:
    one = cache()
    one.put("acme", "k", ANSWER)
    assert one.get("acme", "k") is ANSWER
    assert one.get("rival", "k") is None
    assert one.get("", "k") is None
    assert one.get("acme", "other") is None


def test_no_tenant_drives_out_anothers_answers() -> None:
    one = cache()
    one.put("acme", "k", ANSWER)
    for number in range(1_000):
        one.put("rival", f"k{number}", ANSWER)
    assert one.get("acme", "k") is ANSWER
    assert one.get("rival", "k0") is None
    assert one.get("rival", "k999") is ANSWER


def test_an_answer_is_forgotten_in_time() -> None:
    now = Now()
    one = cache(now)
    one.put("acme", "k", ANSWER)
    now.s += 59.9
    assert one.get("acme", "k") is ANSWER
    now.s += 0.1
    assert one.get("acme", "k") is None


def test_the_least_recently_used_goes_first() -> None:
    one = cache()
    for key in ("a", "b", "c"):
        one.put("acme", key, ANSWER)
    one.get("acme", "a")
    one.put("acme", "d", ANSWER)
    assert [key for key in "abcd" if one.get("acme", key)] == ["a", "c", "d"]


@pytest.mark.parametrize("reason", ["length", "content_filter", "", "tool_calls"])
def test_what_was_cut_is_not_kept(reason: str) -> None:
    one = cache()
    one.put("acme", "k", replace(ANSWER, finish_reason=reason))
    assert one.get("acme", "k") is None


def test_only_so_many_tenants_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm_cache, "TENANTS_MAX", 2)
    one = cache()
    for tenant in ("a", "b"):
        one.put(tenant, "k", ANSWER)
    one.get("a", "k")
    one.put("c", "k", ANSWER)
    assert [tenant for tenant in "abc" if one.get(tenant, "k")] == ["a", "c"]


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 900)), max_size=40))
def test_a_tenants_answers_stay_within_its_bytes(puts: list[tuple[str, int]]) -> None:
    one = cache(entries_max=100, bytes_max=3 * ENTRY_BYTES)
    for key, length in puts:
        one.put("acme", key, replace(ANSWER, text="x" * length))
        shelf = one._shelves.get("acme")
        kept = [] if shelf is None else [answer for _, answer in shelf.entries.values()]
        assert sum(map(size_of, kept)) <= 3 * ENTRY_BYTES
        assert shelf is None or shelf.bytes == sum(map(size_of, kept))
