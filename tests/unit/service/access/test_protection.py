"""Secure mode, blocks, rates and back-off: what they refuse, what they let through, what they keep."""

from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.authorisation import ADMIN, RULES
from data_plane import authorisation as data_plane
from service.access.backoff import ADDRESSES_MAX, BackedOffError, FailureBackoff
from service.access.gate import Gate
from service.access.protection import (
    BLOCKS_MAX,
    AccessState,
    AddressBlockedError,
    Block,
    InvalidAccessRequestError,
    SecureMode,
    SecureModeError,
    address_key,
    parse_network,
)
from service.access.rates import BoundedWindows, Rate, RateLimitedError, RateLimits, Rates
from service.access.state_file import AccessStateError, AccessStateFile
from service.identity import Identity
from service.peer import Peer, address_of

MODE = SecureMode(by="spiffe://f/person/olga", why="a key was stolen", since=1.0)
ALICE = Peer(Identity.person("factory.test", "alice"), 2e9)
NODE = Peer(Identity.node("factory.test", "n1"), 2e9)
LIST = f"{ADMIN}FleetService/ListNodes"


class Call:
    """A call from an address."""

    def __init__(self, address: str = "ipv4:192.0.2.7:4000") -> None:
        self.address = address

    def peer(self) -> str:
        return self.address

    def auth_context(self) -> dict[str, list[bytes]]:
        return {}


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def block(network: str, *, until: float | None = None) -> Block:
    return Block(network=parse_network(network), by="olga", why="", since=0.0, until=until)


class TestAddresses:
    @pytest.mark.parametrize(
        ("peer", "address"),
        [
            ("ipv4:192.0.2.7:4000", "192.0.2.7"),
            ("ipv6:%5B2001:db8::1%5D:4000", "2001:db8::1"),
            ("ipv6:[::1]:4000", "::1"),
            ("ipv6:%5Bfe80::1%25eth0%5D:1", "fe80::1"),
            ("unix:/run/socket", ""),
            ("", ""),
        ],
    )
    def test_are_read_from_what_grpc_says(self, peer: str, address: str) -> None:
        assert address_of(Call(peer)) == address

    @pytest.mark.parametrize(
        ("text", "network"),
        [
            ("192.0.2.7", "192.0.2.7/32"),
            ("192.0.2.0/24", "192.0.2.0/24"),
            ("::ffff:192.0.2.7", "192.0.2.7/32"),
            ("2001:db8::/48", "2001:db8::/48"),
        ],
    )
    def test_of_networks_have_one_form(self, text: str, network: str) -> None:
        assert str(parse_network(text)) == network

    @pytest.mark.parametrize(
        "text", ["", "x", "192.0.2.7/33", "192.0.2.7/24", "0.0.0.0/0", "::/0", "0x7f000001", "127.1", "::1/129"]
    )
    def test_of_networks_in_another_form_are_refused(self, text: str) -> None:
        with pytest.raises(InvalidAccessRequestError):
            parse_network(text)

    def test_a_block_holds_for_mapped_forms_and_not_for_neighbours(self) -> None:
        state = AccessState(blocks=(block("192.0.2.0/30"), block("2001:db8::/48")))
        for address in ("192.0.2.3", "::ffff:192.0.2.1", "2001:db8:0:1::5"):
            assert state.block_of(address, now=0.0) is not None
        for address in ("192.0.2.4", "2001:db8:1::", "", "nonsense"):
            assert state.block_of(address, now=0.0) is None

    def test_a_customer_of_ipv6_is_counted_as_one(self) -> None:
        assert address_key("2001:db8::1") == address_key("2001:db8::ffff:1") != address_key("2001:db8:0:1::1")
        assert address_key("::ffff:192.0.2.7") == address_key("192.0.2.7") == "192.0.2.7"


class TestState:
    def test_a_block_ends_when_it_says_and_is_replaced_by_a_newer_one(self) -> None:
        state = AccessState().with_block(block("192.0.2.7", until=10.0), now=0.0)
        assert state.block_of("192.0.2.7", now=9.9)
        assert state.block_of("192.0.2.7", now=10.0) is None
        assert len(state.with_block(block("192.0.2.7"), now=5.0).blocks) == 1
        assert [str(each.network) for each in state.with_block(block("192.0.2.8"), now=11.0).blocks] == ["192.0.2.8/32"]

    def test_lifting_names_the_block_that_covers(self) -> None:
        state = AccessState(blocks=(block("192.0.2.0/24"),))
        assert state.without_block(parse_network("192.0.2.0/24"), now=0.0).blocks == ()
        with pytest.raises(InvalidAccessRequestError, match=r"192\.0\.2\.0/24 covers it"):
            state.without_block(parse_network("192.0.2.7"), now=0.0)

    def test_there_is_a_most(self) -> None:
        state = AccessState(blocks=tuple(block(f"10.0.{number}.0/24") for number in range(BLOCKS_MAX)))
        with pytest.raises(InvalidAccessRequestError, match="at most"):
            state.with_block(block("192.0.2.7"), now=0.0)

    @pytest.mark.parametrize("rules", [RULES, data_plane.RULES])
    def test_secure_mode_refuses_what_changes_and_nothing_else(self, rules: Any) -> None:
        state = AccessState(secure_mode=MODE)
        for method, rule in rules.items():
            if rule.effect == "write":
                with pytest.raises(SecureModeError, match="a key was stolen"):
                    state.refuse_writes(rules, method)
            else:
                state.refuse_writes(rules, method)
        AccessState().refuse_writes(rules, f"{ADMIN}TemplateService/SubmitTemplate")

    def test_in_secure_mode_one_can_revoke_block_and_leave_it(self) -> None:
        for method in ("RolloutService/Revoke", "AccessService/BlockAddress", "AccessService/SetSecureMode"):
            AccessState(secure_mode=MODE).refuse_writes(RULES, ADMIN + method)


class TestFile:
    def test_what_is_kept_is_read_back(self, tmp_path: Path) -> None:
        file = AccessStateFile(tmp_path / "access.json")
        assert file.read() == AccessState()
        state = AccessState(secure_mode=MODE, blocks=(block("192.0.2.0/24", until=5.5), block("2001:db8::/48")))
        file.write(state)
        assert file.read() == state
        assert file.path.stat().st_mode & 0o777 == 0o600

    def test_the_fullest_state_fits(self, tmp_path: Path) -> None:
        file = AccessStateFile(tmp_path / "access.json")
        widest = Identity.person("d" * 128, "p" * 64).uri
        state = AccessState(
            blocks=tuple(
                Block(network=ip_network(f"2001:db8:{number:x}::/48"), by=widest, why="😀" * 200, since=0.1)
                for number in range(BLOCKS_MAX)
            )
        )
        file.write(state)
        assert file.read() == state

    @pytest.mark.parametrize(
        "content", [b"", b"{}", b"[]", b'{"schema": 2}', b'{"schema":1,"secure_mode":{},"blocks":[]}']
    )
    def test_a_damaged_file_is_not_taken_for_an_empty_one(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "access.json"
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(AccessStateError):
            AccessStateFile(path).read()

    def test_a_file_that_others_could_have_read_is_refused(self, tmp_path: Path) -> None:
        file = AccessStateFile(tmp_path / "access.json")
        file.write(AccessState())
        file.path.chmod(0o644)
        with pytest.raises(AccessStateError, match="0600"):
            file.read()


class TestRates:
    def test_a_hundred_a_minute_with_a_burst_of_twenty(self) -> None:
        clock = Clock()
        limits = RateLimits(Rates(principal=Rate(per_minute=100, burst=20)), clock)

        def taken() -> int:
            count = 0
            try:
                while True:
                    limits.take(principal="alice", address="a")
                    count += 1
            except RateLimitedError as error:
                assert 0 < error.retry_s <= 12  # noqa: PT017 -- it ends the loop
                clock.now += error.retry_s
            return count

        counts = [taken()]
        assert counts == [20]
        while clock.now < 1060:
            counts.append(taken())
        assert sum(counts) <= 120

    def test_after_the_delay_that_is_told_there_is_room(self) -> None:
        clock = Clock()
        limits = RateLimits(Rates(address=Rate(per_minute=60, burst=2)), clock)
        for _ in range(2):
            limits.take(principal="p", address="a")
            clock.now += 0.3
        with pytest.raises(RateLimitedError) as refused:
            limits.take(principal="p", address="a")
        clock.now += refused.value.retry_s + 1e-6
        limits.take(principal="p", address="a")

    def test_a_flood_of_one_takes_no_place_of_others(self) -> None:
        limits = RateLimits(
            Rates(together=Rate(per_minute=60, burst=10), principal=Rate(per_minute=60, burst=5)), Clock()
        )
        for _ in range(100):
            try:
                limits.take(principal="mallory", address="x")
            except RateLimitedError:
                continue
        for _ in range(5):
            limits.take(principal="alice", address="y")
        with pytest.raises(RateLimitedError, match="server"):
            limits.take(principal="bob", address="z")

    def test_without_an_address_there_is_none_to_count(self) -> None:
        limits = RateLimits(Rates(address=Rate(per_minute=1, burst=1)), Clock())
        for _ in range(3):
            limits.take(principal="p", address="")

    def test_memory_is_bounded(self) -> None:
        store = BoundedWindows(Clock(), keys_max=10)
        for number in range(1000):
            assert store.acquire_entry(f"key {number}", 5, 60)
        assert store.reset() == 10

    @given(gaps=st.lists(st.floats(min_value=0, max_value=30), max_size=60), burst=st.integers(1, 8))
    def test_no_window_ever_holds_more_than_the_burst(self, gaps: list[float], burst: int) -> None:
        clock, taken = Clock(), []
        limits = RateLimits(Rates(principal=Rate(per_minute=30, burst=burst)), clock)
        for gap in gaps:
            clock.now += gap
            try:
                limits.take(principal="p", address="")
            except RateLimitedError:
                continue
            taken.append(clock.now)
        span = burst * 2
        assert all(after - before >= span for before, after in zip(taken, taken[burst:], strict=False))


class TestBackoff:
    def test_grows_and_is_forgotten_after_success_or_quiet(self) -> None:
        backoff, now, waits = FailureBackoff(free=3, first_s=1.0, most_s=60.0), 0.0, []
        for _ in range(10):
            backoff.failed("a", now=now)
            try:
                backoff.check("a", now=now)
                waits.append(0.0)
            except BackedOffError as error:
                waits.append(error.retry_s)
                now += error.retry_s
        assert waits == [0, 0, 0, 1, 2, 4, 8, 16, 32, 60]
        backoff.check("b", now=now)
        backoff.succeeded("a")
        backoff.failed("a", now=now)
        backoff.check("a", now=now)
        for _ in range(3):
            backoff.failed("a", now=now)
        backoff.failed("a", now=now + 61)
        backoff.check("a", now=now + 61)

    def test_says_who_waits_and_is_bounded(self) -> None:
        backoff = FailureBackoff(free=0)
        for number in range(ADDRESSES_MAX + 5):
            backoff.failed(str(number), now=0.0)
        waiting = list(backoff.waiting(now=0.5))
        assert len(waiting) == ADDRESSES_MAX
        assert waiting[-1] == (str(ADDRESSES_MAX + 4), 1, 0.5)

    def test_never_overflows(self) -> None:
        backoff = FailureBackoff(free=0, most_s=10.0)
        for _ in range(5000):
            backoff.failed("a", now=0.0)
        with pytest.raises(BackedOffError) as refused:
            backoff.check("a", now=0.0)
        assert refused.value.retry_s == 10.0


class TestGate:
    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def gate(self, tmp_path: Path, clock: Clock) -> Gate:
        rates = RateLimits(Rates(principal=Rate(per_minute=60, burst=2)), clock)
        return Gate(RULES, AccessStateFile(tmp_path / "access.json"), rates=rates, clock=clock)

    def test_a_block_takes_effect_at_once_and_ends_by_itself(self, gate: Gate, clock: Clock) -> None:
        gate.admit(NODE, LIST, Call())
        gate.block(block("192.0.2.0/24", until=clock.now + 5), caller="198.51.100.1")
        for _ in range(2):
            with pytest.raises(AddressBlockedError):
                gate.admit(NODE, LIST, Call())
        gate.admit(NODE, LIST, Call("ipv4:198.51.100.1:1"))
        assert gate.refusals == {"ADDRESS_BLOCKED": 2}
        clock.now += 5
        gate.admit(NODE, LIST, Call())

    def test_nobody_shuts_themselves_out(self, gate: Gate) -> None:
        with pytest.raises(InvalidAccessRequestError, match="your own"):
            gate.block(block("192.0.2.0/24"), caller="192.0.2.7")
        assert gate.state == AccessState()

    def test_what_cannot_be_kept_does_not_take_effect(self, gate: Gate, tmp_path: Path) -> None:
        (tmp_path / "access.json").mkdir()
        with pytest.raises(OSError, match=r"."):
            gate.set_secure_mode(MODE)
        assert gate.state.secure_mode is None

    def test_state_outlives_a_restart(self, gate: Gate, tmp_path: Path) -> None:
        gate.set_secure_mode(MODE)
        gate.set_secure_mode(SecureMode(by="other", why="", since=2.0))
        gate.block(block("192.0.2.7"), caller="")
        again = Gate(RULES, AccessStateFile(tmp_path / "access.json"), rates=None, clock=Clock())
        assert again.state.secure_mode == MODE
        again.unblock(parse_network("192.0.2.7"))
        again.set_secure_mode(None)
        assert AccessStateFile(tmp_path / "access.json").read() == AccessState()

    def test_rates_are_those_of_people_and_services_not_of_nodes_or_health(self, gate: Gate) -> None:
        for _ in range(10):
            gate.admit(NODE, LIST, Call())
            gate.admit(ALICE, "/grpc.health.v1.Health/Check", Call())
        gate.admit(ALICE, LIST, Call())
        gate.admit(ALICE, LIST, Call())
        with pytest.raises(RateLimitedError):
            gate.admit(ALICE, LIST, Call())

    def test_streams_are_looked_at_when_something_changed(self, gate: Gate) -> None:
        changes = []
        gate.changed = lambda: changes.append(gate.state)
        gate.block(block("203.0.113.1"), caller="")
        assert changes == [gate.state]
