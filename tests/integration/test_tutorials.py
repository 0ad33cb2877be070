"""The tutorials, executed as they stand: their commands in order, and in their output what they say is there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.images import BUILD, image_bytes

pytestmark = [pytest.mark.toolchain, pytest.mark.timeout(600)]

TUTORIALS = Path(__file__).resolve().parent.parent.parent / "docs" / "tutorials"
FENCE = re.compile(r"^```(sh|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HOME = BUILD / "test-home"
"""Compiled code, Zig's and Go's caches of all test runs: they are keyed by content."""


def environment() -> dict[str, str]:
    HOME.mkdir(parents=True, exist_ok=True)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    kept = {name: value for name, value in os.environ.items() if name not in {"AGENTFACTORY_DIR", "GOCACHE", "GOFLAGS"}}
    return {**kept, "PATH": path, "HOME": str(HOME), "NO_COLOR": "1"}


def test_there_is_one_for_each_language() -> None:
    assert {path.stem for path in TUTORIALS.glob("*.md")} == {"python", "javascript", "c", "go"}


@pytest.mark.parametrize("name", ["python", "javascript", "c", "go"])
def test_a_tutorial_runs_as_it_stands(name: str, tmp_path: Path) -> None:
    image_bytes("cpython")
    image_bytes("quickjs")
    said, blocks = "", FENCE.findall((TUTORIALS / f"{name}.md").read_text(encoding="utf-8"))
    assert [kind for kind, _ in blocks].count("text") >= 2
    for kind, content in blocks:
        if kind == "sh":
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", content], cwd=tmp_path, env=environment(), check=False,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=500,
            )  # fmt: skip
            said = done.stdout
            assert done.returncode == 0, said
        else:
            missing = [line for line in content.splitlines() if line not in said]
            assert not missing, said
