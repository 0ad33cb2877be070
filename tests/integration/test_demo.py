"""The demo is the product's widest test: everything that it promises is checked while it is shown."""

import json
import subprocess
import sys

import pytest

TIMEOUT_S = 900


@pytest.mark.toolchain
@pytest.mark.timeout(TIMEOUT_S)
def test_all_of_the_demo_happens() -> None:
    command = [sys.executable, "-m", "client.agentctl.main", "-o", "json", "demo", "--key-kind", "ed25519"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert list(facts) == [
        "setup",
        "publish",
        "agents",
        "work",
        "versions",
        "hostile",
        "traitor",
        "damage",
        "alone",
    ]
    promises = [value for chapter in facts.values() for value in chapter.values() if isinstance(value, bool)]
    assert len(promises) > 30
    assert all(promises)
    assert facts["versions"]["failures"] == []
    assert len(facts["agents"]["names"]) == 8
    assert set(facts["traitor"]["refused"]) == {"node-1", "node-2"}
