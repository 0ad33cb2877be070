"""One control plane and one node, real processes: from the last approval to ACTIVE, for a changed line of source.

The clock starts when the reviewer hands in the last signature, and stops when the node says that it runs the version.
It includes verification and signing on the control plane, the debounce, the push, and everything that the node does.
"""

import json
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from agentfactory.admin.v1 import admin_pb2 as admin
from agentfactory.admin.v1.admin_pb2_grpc import ChangeServiceStub
from agentfactory.node.v1 import node_pb2
from agentfactory.node.v1.node_pb2_grpc import NodeServiceStub

from client.demo import actors
from client.local_fleet import LocalFleet, ensure_installation
from client.processes import running
from client.profile import Profile
from client.review import review, sign_review
from client.standard import AUTHOR
from service.keystore import KeyKind

Row = dict[str, Any]

CHANGES: Final = 40
DEBOUNCE_MS: Final = 75.0
BAR_MS: Final = 150.0
NODE: Final = "node-1"
CATALOG: Final = Path(__file__).resolve().parent.parent / "templates" / "catalog"


def _write(directory: Path, version: int) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "agent.py").write_text(f"def process(text):\n    return text + {str(version)!r}\n")
    document = {
        "schema": 1,
        "domain": "dev",
        "name": "changing",
        "version": f"1.0.{version}",
        "role": "bench",
        "description": "One line of source changes.",
        "code": {"source": "agent.py", "image": "cpython"},
    }
    path = directory / "template.json"
    path.write_text(json.dumps(document))
    return path


def _publish_to_active_ms(profile: Profile, path: Path) -> float:
    change = actors.publish(profile, path, author=AUTHOR)
    with (
        actors.channel(profile, profile.control_plane, AUTHOR) as control_plane,
        actors.channel(profile, profile.nodes[NODE], AUTHOR) as node,
    ):
        found = review(
            control_plane, change.name, trust_directory=profile.trust_directory, cache=profile.directory / "cache"
        )
        envelope = sign_review(
            found, key_file=profile.signing_keys[AUTHOR], passphrase_file=profile.passphrase_files[AUTHOR]
        )
        status = NodeServiceStub(node)
        status.GetNodeStatus(node_pb2.GetNodeStatusRequest(), timeout=5.0)
        request = admin.ApproveChangeRequest(name=change.name, envelope=envelope)
        started = time.perf_counter()
        generation = ChangeServiceStub(control_plane).ApproveChange(request, timeout=60.0).generation
        while status.GetNodeStatus(node_pb2.GetNodeStatusRequest(), timeout=5.0).generation < generation:
            time.sleep(0.002)
        return (time.perf_counter() - started) * 1e3


def rows() -> list[Row]:
    """Measure and return the rows for build/bench.json."""
    with tempfile.TemporaryDirectory(prefix="agentfactory-bench-") as place:
        directory = Path(place)
        profile = ensure_installation(
            directory / "factory",
            node_count=1,
            port=0,
            threshold=1,
            key_kind=KeyKind.RSA,
            now=datetime.now(UTC),
            tell=lambda _line: None,
        )
        fleet = LocalFleet(profile)
        with running(fleet.processes):
            fleet.start()
            image = actors.publish(profile, CATALOG / "images" / "cpython" / "template.json", author=AUTHOR)
            actors.approve(profile, image.name, reviewer="bob")
            first = actors.publish(profile, _write(directory / "agent", 0), author=AUTHOR)
            actors.wait_active(profile, actors.approve(profile, first.name, reviewer=AUTHOR)[1].generation)
            took = [
                _publish_to_active_ms(profile, _write(directory / "agent", version))
                for version in range(1, CHANGES + 1)
            ]
    p99 = statistics.quantiles(took, n=100)[98]
    return [
        {
            "name": "publish → ACTIVE, median",
            "value": round(statistics.median(took), 1),
            "unit": "ms",
            "bar": None,
            "ok": True,
        },
        {
            "name": f"publish → ACTIVE, p99 (debounce {DEBOUNCE_MS:.0f} ms included)",
            "value": round(p99, 1),
            "unit": "ms",
            "bar": BAR_MS + DEBOUNCE_MS,
            "ok": p99 <= BAR_MS + DEBOUNCE_MS,
        },
    ]


if __name__ == "__main__":
    for one in rows():
        print(json.dumps(one, ensure_ascii=False))
