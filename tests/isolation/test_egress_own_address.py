"""The node's own ports: a public address of this very host is globally routable, and is not reached all the same."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
NAMESPACE = ["unshare", "--user", "--map-root-user", "--net"]


def _namespaces() -> bool:
    if not shutil.which("unshare") or not shutil.which("ip"):
        return False
    return subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not _namespaces(), reason="needs user and network namespaces, unshare and ip")
def test_an_address_of_this_host_is_refused_and_the_same_address_elsewhere_is_reached(tmp_path: Path) -> None:
    child = subprocess.run(
        [*NAMESPACE, sys.executable, "-m", "tests.isolation.public_address_child", str(tmp_path)],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'proto/gen'}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    found = json.loads(child.stdout)
    assert found["own"].startswith("denied: ")
    assert found["own"].endswith("is this node")
    assert found["seen"] == 0
    assert found["other"] == "reached"
