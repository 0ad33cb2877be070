"""What a node demands of its workers' isolation, and when it says that it must not serve."""

import pytest

from data_plane.isolation import Isolation, demanded_level
from data_plane.settings import NodeSettings
from sandbox.process import LEVELS, Confinement, Level

NEEDED = {"store_directory": "/s", "root_file": "/r", "trust_domain": "t", "tls_certificate_file": "/c",
          "tls_key_file": "/k", "tls_authorities_file": "/a"}  # fmt: skip


def settings(**values: str) -> NodeSettings:
    given = NEEDED | values
    return NodeSettings.load({f"AGENTFACTORY_NODE_{name.upper()}": value for name, value in given.items()})


@pytest.mark.parametrize(
    ("given", "demanded"),
    [
        ({}, "landlock+seccomp"),
        ({"mode": "production"}, "landlock+seccomp"),
        ({"mode": "development"}, "rlimits-only"),
        ({"mode": "development", "isolation_min": "full"}, "full"),
        ({"isolation_min": "rlimits-only"}, "rlimits-only"),
    ],
)
def test_production_demands_what_containers_reach_and_a_setting_overrides(given: dict[str, str], demanded: str) -> None:
    assert demanded_level(settings(**given)) == demanded


@pytest.mark.parametrize("demanded", LEVELS)
@pytest.mark.parametrize("reached", LEVELS)
def test_a_node_refuses_below_its_minimum_and_only_there(demanded: Level, reached: Level) -> None:
    isolation = Isolation(demanded)
    isolation.observe(Confinement(level=reached, missing=("Landlock: none",)))
    assert bool(isolation.refusal) is (LEVELS.index(reached) < LEVELS.index(demanded))
    if isolation.refusal:
        assert f"{demanded}, and reach {reached} (Landlock: none)" in isolation.refusal
        assert not isolation.warning
    assert isolation.rank == LEVELS.index(reached) + 1


def test_before_a_worker_has_told_only_the_least_demand_is_met() -> None:
    assert Isolation("rlimits-only").refusal == ""
    assert "no worker has shown" in Isolation("landlock+seccomp").refusal
    assert Isolation("full").rank == 0


def test_a_weak_level_that_is_permitted_is_a_warning() -> None:
    isolation = Isolation("rlimits-only")
    isolation.observe(Confinement(level="landlock+seccomp", missing=("namespaces (user): no",)))
    assert "namespaces (user): no" in isolation.warning
    isolation.observe(Confinement(level="full"))
    assert isolation.warning == ""
