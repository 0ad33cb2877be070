"""The key-value state of a local run behaves as a node's, within what the command line granted."""

import json
from typing import Any

import pytest

from client.local_kv import KEY_BYTES_MAX, TTL_S_MAX, LocalHost
from data_plane.broker import kv_grant


async def _call(host: LocalHost, function: str, *, interface: str = "kv", **argument: Any) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(await host.call(interface, function, json.dumps(argument).encode()))
    return answer


@pytest.fixture
def host() -> LocalHost:
    return LocalHost(frozenset({"kv"}), kv_bytes_max=64)


async def test_versions_count_up_and_guard_writes(host: LocalHost) -> None:
    assert await _call(host, "put", key="a", value="1", expected=0) == {"ok": {"version": 1}}
    assert (await _call(host, "put", key="a", value="2", expected=0))["error"]["kind"] == "conflict"
    assert await _call(host, "put", key="a", value="2", expected=1) == {"ok": {"version": 2}}
    assert await _call(host, "get", key="a") == {"ok": {"value": "2", "version": 2}}


async def test_what_is_not_there_is_null(host: LocalHost) -> None:
    assert await _call(host, "get", key="a") == {"ok": None}


async def test_delete_respects_the_expected_version(host: LocalHost) -> None:
    await _call(host, "put", key="a", value="1")
    assert (await _call(host, "delete", key="a", expected=7))["error"]["kind"] == "conflict"
    assert await _call(host, "delete", key="a") == {"ok": {}}
    assert await _call(host, "get", key="a") == {"ok": None}


async def test_lists_by_prefix_in_pages(host: LocalHost) -> None:
    for name in ("a1", "a2", "a3", "b"):
        await _call(host, "put", key=name, value="")
    first = (await _call(host, "list", prefix="a", limit=2))["ok"]
    assert first == {"keys": ["a1", "a2"], "cursor": "a2"}
    assert (await _call(host, "list", prefix="a", limit=2, cursor="a2"))["ok"] == {"keys": ["a3"], "cursor": None}


@pytest.mark.parametrize("key", ["", "k" * 513, "a\0b"])
@pytest.mark.parametrize("function", ["get", "put", "delete"])
async def test_refuses_keys_that_a_node_refuses(host: LocalHost, function: str, key: str) -> None:
    assert (await _call(host, function, key=key, value=""))["error"]["kind"] == "invalid"


@pytest.mark.parametrize("ttl_s", [0, -1, TTL_S_MAX + 1])
async def test_refuses_a_life_that_a_node_refuses(host: LocalHost, ttl_s: int) -> None:
    assert (await _call(host, "put", key="a", value="1", ttl_s=ttl_s))["error"]["kind"] == "invalid"
    assert await _call(host, "get", key="a") == {"ok": None}


def test_bounds_are_those_of_the_broker() -> None:
    assert (KEY_BYTES_MAX, TTL_S_MAX) == (kv_grant.KEY_BYTES_MAX, kv_grant.TTL_S_MAX)


async def test_refuses_to_grow_beyond_the_grant(host: LocalHost) -> None:
    assert (await _call(host, "put", key="a", value="x" * 64))["error"]["kind"] == "quota"
    assert await _call(host, "get", key="a") == {"ok": None}


@pytest.mark.parametrize(
    ("function", "argument"), [("get", {}), ("put", {"key": "a", "value": "b", "expected": 0}), ("list", {})]
)
async def test_refuses_what_was_not_granted(function: str, argument: dict[str, Any]) -> None:
    nothing = LocalHost(frozenset(), kv_bytes_max=64)
    assert (await _call(nothing, function, **argument))["error"]["kind"] == "denied"


async def test_refuses_other_interfaces_and_functions(host: LocalHost) -> None:
    agents = LocalHost(frozenset({"agents"}), kv_bytes_max=0)
    assert (await _call(agents, "invoke", interface="agents", template="a/b", input=""))["error"]["kind"] == "denied"
    assert (await _call(host, "drop"))["error"]["kind"] == "invalid"
    assert (await _call(host, "get"))["error"]["kind"] == "invalid"
