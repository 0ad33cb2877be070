"""The keeper of an issuer's keys: rotation, an issuer that is away, and people who invent key ids."""

import asyncio

import pytest

from service.access.issuer_keys import IssuerFetchError, IssuerUnavailableError, KeyKeeper, KeyTimes
from service.access.oidc_fetch import issuer_problem
from service.access.tokens import UnknownKeyError
from tests.issuer import Issuer


class World:
    def __init__(self) -> None:
        self.issuer = Issuer()
        self.issuer.rotate("one")
        self.now = 0.0
        self.fetches = 0
        self.broken = False
        self.keeper = KeyKeeper(
            self.fetch, times=KeyTimes(fresh_s=300, stale_s=1000, pause_s=10), monotonic=lambda: self.now
        )

    async def fetch(self) -> bytes:
        self.fetches += 1
        await asyncio.sleep(0)
        if self.broken:
            raise IssuerFetchError("away")
        return self.issuer.jwks()


@pytest.fixture
def world() -> World:
    return World()


async def test_a_new_key_is_found_without_a_restart(world: World) -> None:
    await world.keeper.find("one")
    world.issuer.rotate("two")
    world.now += 11
    assert (await world.keeper.find("two")).kid == "two"
    assert world.keeper.generation == 2


async def test_a_withdrawn_key_is_no_longer_taken_after_the_next_fetch(world: World) -> None:
    await world.keeper.find("one")
    world.issuer.rotate("two", keep=False)
    world.now += 11
    await world.keeper.find("two")
    with pytest.raises(UnknownKeyError):
        await world.keeper.find("one")


async def test_invented_key_ids_do_not_reach_the_issuer_more_than_once_in_a_while(world: World) -> None:
    await world.keeper.find("one")
    for number in range(200):
        world.now += 0.2
        with pytest.raises(UnknownKeyError):
            await world.keeper.find(f"invented {number}")
    assert world.fetches <= 1 + 200 * 0.2 / 10


async def test_many_at_once_fetch_once(world: World) -> None:
    found = await asyncio.gather(*(world.keeper.find("one") for _ in range(50)))
    assert {key.kid for key in found} == {"one"}
    assert world.fetches == 1


async def test_an_issuer_that_is_away_is_done_without_for_a_while_and_no_longer(world: World) -> None:
    await world.keeper.find("one")
    world.broken = True
    world.now += 999
    await world.keeper.find("one")
    world.now += 1
    with pytest.raises(IssuerUnavailableError) as refused:
        await world.keeper.find("one")
    assert refused.value.retry_s == 10
    world.broken = False
    world.now += 11
    await world.keeper.find("one")


async def test_an_answer_that_is_no_key_set_changes_nothing(world: World) -> None:
    await world.keeper.find("one")
    world.issuer.jwks = lambda: b"<html>"  # type: ignore[method-assign]
    world.now += 11
    with pytest.raises(UnknownKeyError):
        await world.keeper.find("two")
    await world.keeper.find("one")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "issuer.test",
        "ftp://issuer.test",
        "http://issuer.test",
        "http://127.0.0.1.evil.test",
        "https://user@issuer.test",
        "https://issuer.test?x=1",
        "https://issuer.test#x",
        "https://issuer.test:port",
        "file:///etc/passwd",
        "https://",
    ],
)
def test_only_https_and_loopback_can_be_an_issuer(url: str) -> None:
    assert issuer_problem(url)


@pytest.mark.parametrize(
    "url", ["https://issuer.test", "https://issuer.test/realms/x", "http://127.0.0.1:80", "http://[::1]:1"]
)
def test_these_can(url: str) -> None:
    assert not issuer_problem(url)
