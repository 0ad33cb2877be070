"""agentctl audit against a real factory: what stands there, whole or not, on the server, offline, and at the nodes."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.factory import ECHO, Factory, running_factory, write_template


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Factory]:
    with running_factory(tmp_path_factory.mktemp("audit") / "installation") as factory:
        template = write_template(tmp_path_factory.mktemp("echo"), "echo", ECHO)
        done = factory.publish(template, "alice")
        assert done.status == 0, done.errors
        factory.wait_active(done.data["generation"])
        yield factory


def test_list_and_show_name_who_did_what(factory: Factory) -> None:
    listed = factory.ctl("audit", "list", "--action", "ApproveChange", "--principal", "alice").data
    assert {one["outcome"] for one in listed} == {"DONE"}
    (entry,) = [one for one in listed if one["details"]["template"] == "dev/echo@1.0.0"]
    assert len(entry["trace_id"]) in {0, 32}
    shown = factory.ctl("audit", "show", str(entry["sequence"])).data
    assert shown == entry
    assert factory.ctl("audit", "show", "99999").status == 4
    assert factory.ctl("change", "show", "changes/99999").status == 4
    assert factory.ctl("change", "reject", "changes/99999", "--reason", "none").status == 4
    refused = factory.ctl("audit", "list", "--outcome", "REFUSED", "--since", "1h").data
    assert [one["code"] for one in refused] == ["CHANGE_UNKNOWN"]
    assert factory.ctl("audit", "list", "--until", "2020-01-01").data == []
    assert factory.ctl("audit", "list", "--since", "yesterday").status == 2


def test_the_log_verifies_there_here_and_at_the_nodes(factory: Factory, tmp_path: Path) -> None:
    there = factory.ctl("audit", "verify")
    assert (there.status, there.data["whole"]) == (0, True), there.errors
    file = tmp_path / "audit.jsonl"
    assert factory.ctl("audit", "export", str(file)).status == 0
    assert factory.ctl("audit", "export", str(file)).status != 0, "nothing is overwritten"
    here = factory.ctl("audit", "verify", str(file))
    assert (here.status, here.data["whole"], here.data["first"]) == (0, True, 1), here.errors

    deadline = time.monotonic() + 90
    while True:  # the node's first checkpoint comes with its connection
        nodes = factory.ctl("audit", "verify", "--nodes")
        if nodes.data["nodes"] or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    assert (nodes.status, nodes.data["whole"], nodes.data["nodes"]) == (0, True, ["node-1"]), nodes.errors

    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines).replace(b'"outcome":"DONE"', b'"outcome":"FAILED"', 1))
    broken = factory.ctl("audit", "verify", str(file))
    assert broken.status == 8
    assert {one["kind"] for one in broken.data["findings"]} == {"EDITED"}
    file.write_bytes(b"".join(lines[:-3]))
    assert factory.ctl("audit", "verify", str(file)).status == 8

    extract = tmp_path / "extract.jsonl"
    assert factory.ctl("audit", "export", str(extract), "--action", "ApproveChange").status == 0
    assert {json.loads(line)["action"] for line in extract.read_bytes().splitlines()[1:]} == {
        "ChangeService/ApproveChange"
    }
    assert factory.ctl("audit", "verify", str(extract)).status == 8
