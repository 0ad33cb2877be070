"""What a guest may ask of a language model, what it may use, and what is believed of an endpoint's answer."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_plane.broker.answers import ErrorKind, HostRefusal
from data_plane.broker.llm_answer import (
    TEXT_BYTES_MAX,
    Chunk,
    EndpointBrokeOffError,
    TokenUsage,
    error_text,
    printable,
    read_answer,
    read_chunk,
    read_usage,
    valid_text,
)
from data_plane.broker.llm_budget import Allowance, Charge, DayCeilings, Left, LlmAllowances, Price, reserve
from data_plane.broker.llm_grant import (
    LlmBinding,
    cache_key,
    choose_model,
    read_llm_request,
    request_body,
    require_grant,
)
from templates.grants import LlmGrant

HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}]}
GRANT = LlmGrant(binding="default", models=("big", "small", "secret-one"), tokens_max=100)
BINDING = LlmBinding(
    name="default", models={"small": None, "big": None, "odd": None}, output_tokens_max=50, streaming=True
)
PRICE = Price(input_microusd=150_000, output_microusd=600_000)


def request(**members: object) -> str:
    return json.dumps({**HELLO, **members})


def refused(call: Any, *arguments: Any, **named: Any) -> HostRefusal:
    with pytest.raises(HostRefusal) as refusal:
        call(*arguments, **named)
    return refusal.value


# Requests


def test_a_request_is_read_with_all_it_may_say() -> None:
    read = read_llm_request(
        request(model="big", max_tokens=7, temperature=0, stop="END", response_format={"type": "json_object"})
    )
    assert (read.model, read.max_tokens, read.temperature, read.stop) == ("big", 7, 0.0, ("END",))
    assert read.response_format == {"type": "json_object"}
    assert [(each.role, each.content) for each in read.messages] == [("user", "hello")]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{",
        '{"messages": [{"role": "user", "content": "x"}], "messages": []}',
        request(messages=[]),
        request(messages={"role": "user", "content": "x"}),
        request(messages=["hello"]),
        request(messages=[{"role": "user"}]),
        request(messages=[{"role": "tool", "content": "x"}]),
        request(messages=[{"role": "user", "content": ["x"]}]),
        request(messages=[{"role": "user", "content": "x", "name": "y"}]),
        request(messages=[{"role": "user", "content": "x"}] * 257),
        '{"messages": [{"role": "user", "content": "\\ud800"}]}',
        request(model=7),
        request(model=["big"]),
        request(max_tokens=0),
        request(max_tokens=-1),
        request(max_tokens=True),
        request(max_tokens=1.5),
        request(max_tokens=10**12),
        request(temperature=-0.1),
        request(temperature=2.1),
        request(temperature="0"),
        request(temperature=True),
        '{"messages": [{"role": "user", "content": "x"}], "temperature": NaN}',
        request(stop=["a"] * 5),
        request(stop=[""]),
        request(stop=["x" * 129]),
        request(stop=[7]),
        request(stop=7),
        request(response_format="json"),
        request(response_format={"type": "xml"}),
        request(cache=1),
        request(stream=True),
        request(api_key="x"),
        request(base_url="https://elsewhere.example"),
        "[" * 100_000,
        json.dumps({"messages": [[]] * 100_000}),
        json.dumps({"messages": list(range(500_000))}),
        '{"messages": [' * 20 + "]}" * 20,
    ],
    ids=lambda text: text[:60],
)
def test_what_is_no_request_is_refused_as_invalid(text: str) -> None:
    assert refused(read_llm_request, text).kind is ErrorKind.INVALID


def test_long_prompts_full_of_brackets_are_prompts() -> None:
    source = 'if (a[0]) { return "\\n"; }\n' * 30_000
    assert read_llm_request(request(messages=[{"role": "user", "content": source}])).messages[0].content == source


@pytest.mark.parametrize(
    ("members", "cached"),
    [
        ({}, False),
        ({"temperature": 0}, True),
        ({"temperature": 0.0, "cache": False}, False),
        ({"temperature": 0.5}, False),
        ({"temperature": 0.5, "cache": True}, True),
        ({"cache": True}, True),
    ],
)
def test_only_what_is_deterministic_is_cached_unless_asked(members: dict[str, object], cached: bool) -> None:  # noqa: FBT001
    assert read_llm_request(request(**members)).is_cached is cached


def test_the_first_granted_model_of_the_operator_answers_unless_one_is_named() -> None:
    assert choose_model(GRANT, BINDING, None) == "small"
    assert choose_model(GRANT, BINDING, "big") == "big"


@pytest.mark.parametrize("model", ["odd", "secret-one", "", "BIG", "*"])
def test_a_model_outside_of_grant_or_node_is_denied(model: str) -> None:
    assert refused(choose_model, GRANT, BINDING, model).kind is ErrorKind.DENIED


def test_a_node_without_any_granted_model_denies() -> None:
    other = LlmGrant(binding="default", models=("huge",), tokens_max=1)
    assert refused(choose_model, other, BINDING, None).kind is ErrorKind.DENIED


def test_a_binding_that_was_not_granted_is_denied() -> None:
    assert require_grant((GRANT,), "default") is GRANT
    assert refused(require_grant, (GRANT,), "other").kind is ErrorKind.DENIED
    assert refused(require_grant, (), "default").kind is ErrorKind.DENIED


def test_the_endpoint_gets_what_was_asked_and_the_amount_that_is_left() -> None:
    read = read_llm_request(request(temperature=0.5, stop=["END"], cache=True))
    body = request_body(read, model="big", max_tokens=9, max_tokens_name="max_completion_tokens", streaming=True)
    assert body == {
        "model": "big",
        "messages": HELLO["messages"],
        "temperature": 0.5,
        "stop": ["END"],
        "max_completion_tokens": 9,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_the_cache_key_is_of_everything_that_the_answer_depends_on() -> None:
    def key(binding: str = "default", model: str = "big", **members: object) -> str:
        return cache_key(read_llm_request(request(**members)), binding=binding, model=model)

    different = [
        key(),
        key(binding="other"),
        key(model="small"),
        key(temperature=0),
        key(max_tokens=5),
        key(stop="x"),
        key(response_format={"type": "text"}),
        key(messages=[{"role": "system", "content": "hello"}]),
    ]
    assert len(set(different)) == len(different)
    assert key(temperature=0) == key(temperature=0.0, cache=True)


# Budgets


def test_a_price_is_rounded_up_and_never_exceeded() -> None:
    assert PRICE.cost_microusd(1, 0) == 1
    assert PRICE.cost_microusd(1_000_000, 1_000_000) == 750_000


@given(cost=st.integers(0, 10**6), tokens=st.integers(0, 10**6), dear=st.integers(0, 10**8), out=st.integers(0, 10**8))
def test_output_within_a_cost_is_as_much_as_fits(cost: int, tokens: int, dear: int, out: int) -> None:
    price = Price(input_microusd=dear, output_microusd=out)
    fits = price.output_tokens_within(cost, tokens)
    if fits >= 0:
        assert price.cost_microusd(tokens, min(fits, 10**9)) <= cost
    else:
        assert price.cost_microusd(tokens, 0) > cost
    if 0 <= fits < 10**12:
        assert price.cost_microusd(tokens, fits + 1) > cost


def left(tokens: int | None = None, cost: int | None = None, kind: ErrorKind = ErrorKind.BUDGET) -> Left:
    return Left(tokens=tokens, cost_microusd=cost, kind=kind, whose="somebody")


def test_the_output_is_cut_to_what_the_least_bound_leaves() -> None:
    taken = reserve([left(100), left(70), left(None)], price=PRICE, input_tokens=20, output_tokens=500)
    assert (taken.output_tokens, taken.amount.tokens) == (50, 70)
    taken = reserve([left(None, cost=9)], price=PRICE, input_tokens=20, output_tokens=500)
    assert taken.output_tokens == 10
    assert taken.amount.cost_microusd == 9


@pytest.mark.parametrize(
    ("lefts", "price", "kind"),
    [
        ([left(20)], PRICE, ErrorKind.BUDGET),
        ([left(0)], PRICE, ErrorKind.BUDGET),
        ([left(-5)], PRICE, ErrorKind.BUDGET),
        ([left(100), left(3, kind=ErrorKind.QUOTA)], PRICE, ErrorKind.QUOTA),
        ([left(100, cost=2)], PRICE, ErrorKind.BUDGET),
        ([left(100, cost=10**9)], None, ErrorKind.DENIED),
    ],
)
def test_no_room_is_no_call(lefts: list[Left], price: Price | None, kind: ErrorKind) -> None:
    assert refused(reserve, lefts, price=price, input_tokens=20, output_tokens=5).kind is kind


@given(
    tokens_max=st.integers(0, 1_000),
    calls=st.lists(st.tuples(st.integers(0, 300), st.integers(1, 300), st.integers(0, 100)), max_size=30),
)
def test_no_sequence_of_calls_uses_more_than_was_granted(tokens_max: int, calls: list[tuple[int, int, int]]) -> None:
    allowance = Allowance(tokens=tokens_max)
    used = 0
    for input_tokens, output_tokens, percent in calls:
        try:
            taken = reserve([allowance.left()], price=None, input_tokens=input_tokens, output_tokens=output_tokens)
        except HostRefusal:
            continue
        allowance.take(taken.amount)
        actual = Charge.of(None, input_tokens, taken.output_tokens * percent // 100)
        allowance.take(actual.less(taken.amount))
        used += actual.tokens
        assert allowance.tokens == tokens_max - used
    assert used <= tokens_max


def test_an_underestimated_input_leaves_nothing_for_the_next_call() -> None:
    allowance = Allowance(tokens=100)
    taken = reserve([allowance.left()], price=None, input_tokens=20, output_tokens=10)
    allowance.take(taken.amount)
    allowance.take(Charge.of(None, 150, 10).less(taken.amount))
    assert refused(reserve, [allowance.left()], price=None, input_tokens=1, output_tokens=1).kind is ErrorKind.BUDGET


def test_a_child_draws_from_everybody_above_it_that_has_the_binding() -> None:
    def grant(binding: str, tokens: int, cost: int | None = None) -> LlmGrant:
        return LlmGrant(binding=binding, models=("m",), tokens_max=tokens, cost_max_microusd=cost)

    root = LlmAllowances([grant("b", 100, 50)])
    middle = LlmAllowances([], root)
    child = LlmAllowances([grant("b", 1_000), grant("c", 1_000)], middle)
    for each in child.of("b"):
        each.take(Charge(tokens=60, cost_microusd=5))
    for each in child.of("c"):
        each.take(Charge(tokens=200, cost_microusd=10**9))
    assert [(each.tokens, each.cost_microusd) for each in child.of("b")] == [(940, None), (40, 45)]
    assert [each.tokens for each in child.of("c")] == [800]
    assert [each.tokens for each in middle.of("b")] == [40]
    lefts = [each.left() for each in child.of("b")]
    cheap = Price(input_microusd=0, output_microusd=1_000_000)
    assert reserve(lefts, price=cheap, input_tokens=10, output_tokens=10_000).output_tokens == 30


def test_ceilings_of_a_day_bound_agents_and_tenants_apart() -> None:
    ceilings = DayCeilings(agent_tokens=100, tenant_tokens=150, tenant_cost_microusd=7)
    agent, tenant = ceilings.left(agent=Charge(tokens=90, cost_microusd=1), tenant=Charge(tokens=100, cost_microusd=2))
    assert (agent.tokens, agent.cost_microusd, tenant.tokens, tenant.cost_microusd) == (10, None, 50, 5)
    assert agent.kind is tenant.kind is ErrorKind.QUOTA
    assert ceilings.are_set
    assert not DayCeilings().are_set


# Answers


def answer(**changes: object) -> bytes:
    whole = {
        "model": "big-1",
        "choices": [{"message": {"role": "assistant", "content": "hé"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4},
        **changes,
    }
    return json.dumps(whole).encode()


def test_an_answer_is_read() -> None:
    read = read_answer(answer(), model="big")
    assert (read.text, read.model, read.finish_reason) == ("hé", "big-1", "stop")
    assert read.usage == TokenUsage(input_tokens=3, output_tokens=4)
    assert read_answer(answer(model=None), model="big").model == "big"
    assert read_answer(answer(model="x" * 101), model="big").model == "big"
    assert read_answer(answer(choices=[{"message": {"content": None}}]), model="big").text == ""


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"\xff\xfe",
        b"[" * 1_000_000,
        answer(choices=[]),
        answer(choices=None),
        answer(choices={"0": 1}),
        answer(choices=["x"]),
        answer(choices=[{}]),
        answer(choices=[{"message": {"content": 7}}]),
        answer(choices=[{"message": {"content": ["x"]}}]),
        answer(choices=[{"message": {"content": "x" * (TEXT_BYTES_MAX + 1)}}]),
    ],
    ids=lambda body: str(body[:40]),
)
def test_an_answer_out_of_shape_is_a_failure(body: bytes) -> None:
    assert refused(read_answer, body, model="big").kind is ErrorKind.FAILED


@pytest.mark.parametrize(
    "usage",
    [
        None,
        7,
        [],
        {},
        {"prompt_tokens": 1},
        {"prompt_tokens": -1, "completion_tokens": 1},
        {"prompt_tokens": True, "completion_tokens": 1},
        {"prompt_tokens": "1", "completion_tokens": 1},
        {"prompt_tokens": 1, "completion_tokens": 10**10},
        {"prompt_tokens": 1.5, "completion_tokens": 1},
    ],
)
def test_amounts_that_cannot_be_are_not_reported(usage: Any) -> None:
    assert read_usage(usage) is None


def test_chunks_are_read() -> None:
    assert read_chunk('{"choices": [{"delta": {"content": "a"}}]}') == Chunk(delta="a")
    assert read_chunk('{"choices": [{"delta": {}, "finish_reason": "length"}]}') == Chunk(finish_reason="length")
    assert read_chunk('{"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}') == Chunk(
        usage=TokenUsage(input_tokens=1, output_tokens=2)
    )
    for data in ("", "[]", "{", '{"choices": 7}', '{"choices": [7]}', '{"choices": [{"delta": {"content": 7}}]}'):
        assert refused(read_chunk, data).kind is ErrorKind.FAILED
    with pytest.raises(EndpointBrokeOffError) as broken:
        read_chunk('{"error": {"message": "overload"}}')
    assert broken.value.said == "overload"
    assert "overload" not in str(broken.value)


def test_an_endpoints_words_are_cut_and_printable() -> None:
    assert printable(error_text({"error": {"message": "a\r\n\x1b[31mb"}})) == "a [31mb"
    assert error_text({"error": "plain"}) == "plain"
    assert error_text({"error": {"message": 7}}) == error_text([]) == error_text(None) == "no reason given"
    assert len(printable("x" * 10_000)) == 300


def test_lone_surrogates_do_not_travel() -> None:
    assert valid_text("a\ud800b") == "a?b"
    assert read_answer(b'{"choices":[{"message":{"content":"\\ud800"}}]}', model="m").text == "?"
