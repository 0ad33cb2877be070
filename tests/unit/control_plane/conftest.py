from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.installation import LocalInstallation, make_installation
from tests.unit.control_plane.world import World


@pytest.fixture(scope="session")
def installation(tmp_path_factory: pytest.TempPathFactory) -> LocalInstallation:
    return make_installation(tmp_path_factory.mktemp("installation") / "one")


@pytest.fixture
def world(installation: LocalInstallation, tmp_path: Path) -> Iterator[World]:
    made = World(installation, tmp_path / "state")
    yield made
    made.store.close()
