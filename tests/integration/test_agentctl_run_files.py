"""`agentctl template run --grant files`: an author's directories behind the mounts of grants, and nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.c_modules import c_module
from tests.factory import Done, agentctl

pytestmark = pytest.mark.toolchain

C = r"""
#include <errno.h>
#include <stdio.h>
#include <string.h>

static const char *attempt(const char *path, const char *mode) {
  FILE *file = fopen(path, mode);
  if (!file) return strerror(errno);
  fclose(file);
  return "opened";
}

int main(void) {
  char read[100] = "", input[50] = "";
  size_t length = fread(input, 1, sizeof input - 1, stdin);
  FILE *file = fopen("/data/in.txt", "r");
  if (file) { if (!fgets(read, sizeof read, file)) read[0] = 0; fclose(file); }
  file = fopen("/scratch/out.txt", "a");
  int wrote = file && fwrite(input, 1, length, file) == length && !fclose(file);
  printf("%s|%d|%s|%s|%s", read, wrote, attempt("/data/in.txt", "a"), attempt("/data/../secret", "r"),
         attempt("/etc/passwd", "r"));
  return 0;
}
"""
GRANTS = [
    {"mount": "/data", "export": "corpus", "mode": "ro"},
    {"mount": "/scratch", "export": "scratch", "mode": "rw"},
]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    (folder / "agent.wasm").write_bytes(c_module(C))
    document: dict[str, Any] = {
        "schema": 1, "domain": "dev", "name": "files", "version": "1.0.0", "role": "test", "description": "For tests.",
        "code": {"module": "agent.wasm", "abi": "command"}, "grants": {"files": GRANTS},
    }  # fmt: skip
    (folder / "template.json").write_text(json.dumps(document))
    return folder / "template.json"


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    data, scratch = tmp_path / "data", tmp_path / "scratch"
    data.mkdir()
    scratch.mkdir()
    (data / "in.txt").write_text("given")
    (tmp_path / "secret").write_text("beside")
    return data, scratch


def run(template: Path, *grants: str) -> Done:
    named = [part for grant in grants for part in ("--grant", grant)]
    return agentctl(template.parent, "template", "run", str(template), "--input", "kept", *named)


def test_a_run_reads_and_writes_where_its_author_says(template: Path, places: tuple[Path, Path]) -> None:
    data, scratch = places
    for times in (1, 2):
        done = run(template, f"files=/data={data}", f"files=/scratch={scratch}:rw")
        assert done.status == 0, done.errors
        read, wrote, append, up, host = done.data["output"].split("|")
        assert (read, wrote) == ("given", "1")
        assert "opened" not in {append, up, host}
        assert (scratch / "out.txt").read_text() == "kept" * times
        assert done.data["usage"]["file_read_bytes"] == len("given")
        assert done.data["usage"]["file_written_bytes"] == len("kept")
    assert (data / "in.txt").read_text() == "given"


def test_what_is_not_named_or_not_said_to_be_writable_is_refused(template: Path, places: tuple[Path, Path]) -> None:
    data, scratch = places
    nothing = run(template).data["output"].split("|")
    assert nothing[:2] == ["", "0"]
    assert nothing[2:].count("opened") == 0
    read_only = run(template, f"files=/data={data}:rw", f"files=/scratch={scratch}").data["output"].split("|")
    assert read_only[:2] == ["given", "0"], "a grant ro is not widened by :rw, and a grant rw needs it"
    assert read_only[2] != "opened"
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("grant", ["files=/data=/does/not/exist", "files=data=.", "files=/data=", "files"])
def test_a_mount_that_is_none_is_a_usage_error(template: Path, grant: str) -> None:
    done = run(template, grant)
    assert done.status == 2
    assert "--grant" in done.errors


def test_a_mount_that_the_template_does_not_ask_for_is_refused(template: Path, tmp_path: Path) -> None:
    done = run(template, f"files=/dat={tmp_path}")
    assert done.status == 2
    assert "expected a mount of dev/files@1.0.0" in done.errors
