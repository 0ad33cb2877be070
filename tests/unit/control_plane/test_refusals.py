"""Floods of one refusal: the first is written, the rest is counted, and nothing is lost or counted twice."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from control_plane.audit import Call, Decision
from control_plane.refusals import Refusals

NOW = datetime(2030, 1, 1, tzinfo=UTC)
WINDOW = timedelta(seconds=60)


def call(who: str, action: str = "A/Do") -> Call:
    return Call(principal=who, action=action)


def test_the_first_is_written_and_the_others_are_one_entry_per_window() -> None:
    refusals = Refusals(window=WINDOW)
    at = NOW
    written = []
    for second in range(120):
        at = NOW + timedelta(seconds=second)
        write, summaries = refusals.refused(call("alice"), Decision(code="X"), now=at)
        assert summaries == [] or second == 60
        written += [1] * write + [each.count for each in summaries]
        written += [each.count for each in refusals.due(now=at)]
    written += [each.count for each in refusals.close()]
    assert written == [1, 59, 60]


def test_a_flood_that_goes_on_is_not_written_anew_each_window() -> None:
    refusals = Refusals(window=WINDOW)
    assert refusals.refused(call("alice"), Decision(code="X"), now=NOW) == (True, [])
    assert refusals.refused(call("alice"), Decision(code="X"), now=NOW + timedelta(seconds=1)) == (False, [])
    (summary,) = refusals.due(now=NOW + WINDOW)
    assert (summary.count, summary.since) == (1, NOW + timedelta(seconds=1))
    assert refusals.refused(call("alice"), Decision(code="X"), now=NOW + WINDOW * 1.5) == (False, [])
    assert [each.count for each in refusals.due(now=NOW + WINDOW * 2)] == [1]
    assert refusals.due(now=NOW + WINDOW * 3) == []
    assert refusals.refused(call("alice"), Decision(code="X"), now=NOW + WINDOW * 3) == (True, [])


def test_another_principal_action_or_code_is_another_refusal() -> None:
    refusals = Refusals(window=WINDOW)
    for who, action, code in (("a", "A/Do", "X"), ("b", "A/Do", "X"), ("a", "B/Do", "X"), ("a", "A/Do", "Y")):
        assert refusals.refused(call(who, action), Decision(code=code), now=NOW) == (True, [])


def test_without_a_principal_the_address_tells_them_apart() -> None:
    refusals = Refusals(window=WINDOW)
    for address in ("10.0.0.1", "10.0.0.2"):
        assert refusals.refused(Call(address=address), Decision(code="X"), now=NOW)[0]
    assert not refusals.refused(Call(address="10.0.0.2"), Decision(code="X"), now=NOW)[0]


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 40), st.booleans()), max_size=80))
def test_nothing_is_lost_and_memory_is_bounded(story: list[tuple[str, int, bool]]) -> None:
    refusals = Refusals(window=WINDOW, kinds_max=3)
    now, told, happened = NOW, 0, 0
    for who, seconds, look in story:
        now += timedelta(seconds=seconds)
        if look:
            told += sum(each.count for each in refusals.due(now=now))
            continue
        write, summaries = refusals.refused(call(who), Decision(code="X"), now=now)
        happened += 1
        told += write + sum(each.count for each in summaries)
        assert len(refusals._open) <= 3
    assert told + sum(each.count for each in refusals.close()) == happened
