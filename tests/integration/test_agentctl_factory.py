"""agentctl against a real factory on this machine, which `agentctl up` starts and stops."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.factory import ECHO, SPIN, Factory, running_factory, write_template


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Factory]:
    with running_factory(tmp_path_factory.mktemp("factory") / "installation") as factory:
        yield factory


@pytest.fixture(scope="module")
def echo(factory: Factory, tmp_path_factory: pytest.TempPathFactory) -> Factory:
    """The factory with the template dev/echo active."""
    template = write_template(
        tmp_path_factory.mktemp("echo"),
        "echo",
        ECHO,
        default_config={"times": 1},
        config_schema={
            "type": "object",
            "properties": {"times": {"type": "integer", "maximum": 5}},
            "additionalProperties": False,
        },
        limits={"input_bytes": 4096},
    )
    done = factory.publish(template, "alice")
    assert done.status == 0, done.errors
    factory.wait_active(done.data["generation"])
    return factory


def test_a_fresh_factory_has_nothing_to_mend(factory: Factory) -> None:
    done = factory.ctl("doctor")
    assert done.status == 0, done.data
    assert {"control-plane", "node-1", "roles"} <= {one["subject"] for one in done.data}


def test_every_role_has_an_expiry(factory: Factory) -> None:
    roles = {one["role"]: one for one in factory.ctl("key", "list").data}
    assert {"root", "targets", "snapshot", "timestamp", "plan"} <= set(roles)
    assert roles["root"]["kept"] == "offline"
    assert roles["timestamp"]["kept"] == "online"
    assert all(one["expires"] for one in roles.values())


def test_from_a_template_to_an_answer(echo: Factory) -> None:
    made = echo.ctl("agent", "create", "echo", "--suffix", "one", "--config", '{"times": 2}')
    assert made.status == 0, made.errors
    assert made.data["name"] == "nodes/node-1/agents/echo-one"
    assert made.data["effective_config"] == {"times": 2}

    answered = echo.ctl("agent", "invoke", made.data["name"], "-", stdin="héllo")
    assert answered.data["output"] == "héllo"
    receipt = answered.data["receipt"]
    assert receipt["template"] == "dev/echo@1.0.0"
    assert receipt["node"] == "node-1"
    assert receipt["usage"]["fuel"] > 0

    (record,) = [one for one in echo.ctl("invocation", "list").data if one["invocation_id"] == receipt["invocation_id"]]
    assert record["outcome"] == "OK"
    shown = echo.ctl("invocation", "show", receipt["invocation_id"])
    assert shown.data["agent"] == made.data["name"]
    assert [one["name"] for one in echo.ctl("agent", "list").data] == [made.data["name"]]
    assert echo.ctl("agent", "delete", made.data["name"]).status == 0
    assert echo.ctl("agent", "show", made.data["name"]).status == 4


def test_node_status_names_what_runs_and_who_approved_it(echo: Factory) -> None:
    (status,) = echo.ctl("node", "status").data
    assert status["isolation"]["level"] in {"full", "landlock+seccomp", "rlimits-only"}
    assert status["isolation"]["demanded"] == "rlimits-only"  # a development node
    assert status["state"] == "SERVING"
    assert status["control_plane_connected"]
    (template,) = [one for one in status["templates"] if one["template"] == "dev/echo@1.0.0"]
    assert template["approvers"] == ["alice"]


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("agent", "create", "dev/ecko"), 4, ["UNKNOWN_TEMPLATE", "dev/echo"]),
        (("agent", "create", "dev/echo", "--config", '{"times": 9}'), 3, ["CONFIG_MISMATCH", "/times"]),
        (("agent", "create", "dev/echo", "--config", "[]"), 2, ["expected a JSON object"]),
        (("agent", "invoke", "nodes/node-1/agents/none", "x"), 4, ["UNKNOWN_AGENT"]),
        (("agent", "invoke", "dev/echo", "x" * 5000), 3, ["INPUT", "4096"]),
        (("template", "show", "dev/none"), 4, ["TEMPLATE"]),
        (("change", "show", "4711"), 4, ["CHANGE_UNKNOWN"]),
        (("--as", "nobody", "node", "list"), 2, ["INVALID_PROFILE", "nobody"]),
        (("agent", "create", "echo", "--node", "node-7"), 2, ["node-1", "node-7"]),
        (("agent", "create", "echo", "--config", '{"times": 1, "times": 2}'), 2, ["DUPLICATE_KEY", "times"]),
        (("agent", "invoke", "echo", "x", "--fuel", "-1"), 2, ["--fuel"]),
        (("agent", "invoke", "echo", "x", "--timeout", "0"), 2, ["--timeout"]),
        (("node", "status", "node-7"), 2, ["node-1"]),
        (("node", "drain", "node-7"), 2, ["node-1"]),
        (("invocation", "show", "none"), 4, ["UNKNOWN_INVOCATION"]),
        (("rollout", "rollback", "--to", "99"), 4, ["GENERATION_UNKNOWN", "99"]),
        (("--as", "cli", "node", "list"), 5, ["PERMISSION_DENIED"]),
        (("--as", "alice", "agent", "list"), 5, ["PERMISSION_DENIED"]),
    ],
)
def test_refusals_say_what_and_where(echo: Factory, arguments: tuple[str, ...], status: int, words: list[str]) -> None:
    done = echo.ctl(*arguments)
    assert done.status == status, done.errors
    for word in words:
        assert word in done.errors


def test_an_author_does_not_approve_their_own_change(factory: Factory, tmp_path: Path) -> None:
    template = write_template(tmp_path, "own", ECHO, domain="documentation")
    submitted = factory.ctl("template", "publish", str(template))
    assert submitted.status == 10, submitted.errors
    refused = factory.ctl("--as", "alice", "change", "approve", submitted.data[0]["change"], "--yes")
    assert refused.status in {5, 8}, refused.errors
    assert factory.ctl("--as", "bob", "change", "reject", submitted.data[0]["change"], "--reason", "no").status == 0
    (rejected,) = [one for one in factory.ctl("change", "list").data if one["change"] == submitted.data[0]["change"]]
    assert (rejected["state"], rejected["reject_reason"]) == ("REJECTED", "bob: no")


def test_a_submission_that_is_wrong_is_refused_with_its_place(factory: Factory, tmp_path: Path) -> None:
    template = write_template(tmp_path, "wrong", ECHO, limits={"fuel": 0})
    done = factory.ctl("template", "publish", str(template))
    assert done.status == 3
    assert "/limits/fuel" in done.errors


def test_a_guest_that_spins_ends_in_fuel(factory: Factory, tmp_path: Path) -> None:
    done = factory.publish(write_template(tmp_path, "spin", SPIN, limits={"fuel": 5_000_000}), "alice")
    assert done.status == 0, done.errors
    factory.wait_active(done.data["generation"])
    failed = factory.ctl("agent", "invoke", "dev/spin", "x")
    assert failed.status == 1, "as in template run: the guest failed, the node did not"
    assert "FUEL: expected at most 5000000" in failed.errors
    shown = failed.errors.rpartition("invocation show ")[2].strip()
    assert factory.ctl("invocation", "show", shown).data["receipt"]["usage"]["fuel"] == 5_000_000
    assert factory.ctl("invocation", "list", "--template", "dev/spin").data[0]["outcome"] == "FUEL"


def test_a_new_version_its_rollback_and_its_revocation(echo: Factory, tmp_path: Path) -> None:
    newer = write_template(tmp_path, "echo", ECHO.replace("65536", "32768"), version="1.1.0")
    shown = echo.ctl("template", "publish", str(newer))
    difference = echo.ctl("change", "show", shown.data[0]["change"])
    assert difference.status == 1, "its input limit is wider"
    assert any(one["direction"] == "widened" for one in difference.data["differences"])
    done = echo.ctl("change", "approve", shown.data[0]["change"], "--yes")
    echo.wait_active(done.data["generation"])
    assert echo.ctl("agent", "invoke", "dev/echo", "x").data["receipt"]["template"] == "dev/echo@1.1.0"

    back = echo.ctl("rollout", "rollback", "--reason", "worse")
    assert back.status == 0, back.errors
    echo.wait_active(back.data["generation"])
    assert echo.ctl("agent", "invoke", "dev/echo", "x").data["receipt"]["template"] == "dev/echo@1.0.0"

    revoked = echo.ctl("revoke", "template", "dev/echo@1.1.0", "--reason", "must not come back", "--yes")
    assert revoked.status == 0, revoked.errors
    refused = echo.ctl("rollout", "rollback", "--to", str(done.data["generation"]))
    assert refused.status in {6, 8}, refused.errors
    generations = echo.ctl("rollout", "status").data
    assert generations[0]["cause"].startswith("revo")


def test_a_reviewer_sees_what_a_change_gains_through_agents_and_who_gains_by_one(
    factory: Factory, tmp_path: Path
) -> None:
    kv = {"kv": {"namespace": "notes", "bytes_max": 1000}}
    for name, fields in (("vault", {"grants": kv, "callers": ["dev/clerk"]}), ("clerk", {"callers": ["dev/*"]})):
        done = factory.publish(write_template(tmp_path / name, name, ECHO, **fields), "alice")
        assert done.status == 0, done.errors

    asks = write_template(
        tmp_path / "clerk", "clerk", ECHO, version="1.1.0", callers=["dev/*"], grants={"agents": ["dev/vault"]}
    )
    asks_change = factory.ctl("template", "publish", str(asks)).data[0]["change"]
    shown = factory.ctl("change", "show", asks_change)
    assert shown.status == 1, shown.errors
    assert shown.data["through_agents"] == [{"template": "dev/vault@1.0.0", "via": [], "depth": 1, "grants": kv}]
    assert {one["subject"] for one in shown.data["differences_through_agents"]} == {
        "/through_agents/dev~1vault",
        "/through_agents/dev~1vault/grants/kv",
    }
    assert factory.ctl("change", "approve", asks_change, "--yes").status == 0

    wider = {"kv": {"namespace": "notes", "bytes_max": 2000}}
    vault = write_template(tmp_path / "vault", "vault", ECHO, version="1.1.0", grants=wider, callers=["dev/clerk"])
    shown = factory.ctl("change", "show", factory.ctl("template", "publish", str(vault)).data[0]["change"])
    assert shown.status == 1, shown.errors
    assert shown.data["reached_by"] == [{"template": "dev/clerk@1.1.0", "via": [], "new": False}]
