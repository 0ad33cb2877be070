"""The audit log: durable entries per second beside raw SQLite's, what a call pays for it, and how fast it is verified.

Everything is measured in one run on one disk. A raw commit is the least that a durable entry can cost: one row of the
same length in a transaction of its own, with the same pragmas.
"""

import asyncio
import json
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, cast

from securesystemslib.signer import Signer

from control_plane.audit import Call, Decision, acting
from control_plane.audit_log import AuditLog, AuditTerms
from control_plane.audit_recorder import AuditRecorder
from control_plane.sqlite_store import SqliteStore
from service.guard_ports import Context
from service.identity import Identity
from service.peer import peer_of
from service.telemetry import Telemetry
from templates.audit_entry import Outcome
from tests.audit_lines import audit_lines
from tests.installation import make_installation

Row = dict[str, Any]

COMMITS: Final = 300
ROUNDS: Final = 3
AT_ONCE: Final = 64
VERIFIED: Final = 20_000
CALLS: Final = 20_000
RATIO_BAR: Final = 0.5
"""One durable entry in a transaction of its own, against one raw durable row."""

ALICE: Final = Call(
    principal="spiffe://factory.test/person/alice", roles=("person",), address="127.0.0.1", action="A/Do"
)
DECISION: Final = Decision(
    resource="changes/7",
    digests={"template": "a" * 64, "code": "b" * 64, "approval": "c" * 64},
    details={"template": "docs/echo@1.0.0", "state": "IN_REVIEW", "by": "alice"},
)


def _now() -> datetime:
    return datetime.now(UTC)


def _rate(work: Callable[[], object], count: int) -> float:
    started = time.perf_counter()
    for _ in range(count):
        work()
    return count / (time.perf_counter() - started)


def _raw(path: Path) -> Callable[[], object]:
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in ("journal_mode=WAL", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute("CREATE TABLE entries (sequence INTEGER PRIMARY KEY, line TEXT)")
    line = "x" * 900

    def commit() -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO entries (line) VALUES (?)", (line,))
        connection.execute("COMMIT")

    return commit


def _durable(store: SqliteStore) -> Callable[[], object]:
    def commit() -> None:
        with acting(ALICE), store.writing() as connection:
            store.record(connection, DECISION)

    return commit


def _recorder(store: SqliteStore) -> AuditRecorder:
    return AuditRecorder(store=store, telemetry=Telemetry(), clock=_now, roles_of=lambda _peer: ("person",))


async def _refusals_per_s(store: SqliteStore) -> float:
    """Refusals of different kinds at the same time, each on the disk before its caller would hear of it."""
    recorder = _recorder(store)

    async def refuse(kind: int) -> None:
        for number in range(20):
            call = Call(principal=f"p/{kind}-{number}", action="A/Do")
            await recorder.note(call, Decision(outcome=Outcome.REFUSED, code="POLICY"))

    started = time.perf_counter()
    await asyncio.gather(*(refuse(kind) for kind in range(AT_ONCE)))
    return AT_ONCE * 20 / (time.perf_counter() - started)


class _Peer:
    """What the guard's observer asks of a call's context, as grpc answers it."""

    def __init__(self, certificate: bytes) -> None:
        self._properties = {"ssl_tls_version": [b"TLSv1.3"], "x509_pem_cert": [certificate]}

    def auth_context(self) -> dict[str, list[bytes]]:
        return self._properties

    def peer(self) -> str:
        return "ipv4:127.0.0.1:50000"


async def _per_call_us(store: SqliteStore, certificate: bytes) -> float:
    """What a call that only reads pays."""
    recorder = _recorder(store)
    rounds = []
    for _ in range(5):
        started = time.perf_counter()
        for _ in range(CALLS // 5):
            context = cast("Context", _Peer(certificate))
            recorder.begun("/agentfactory.admin.v1.ChangeService/GetChange", context)
            recorder.identified(peer_of(context))
            await recorder.answered()
        rounds.append((time.perf_counter() - started) / (CALLS // 5))
    return statistics.median(rounds) * 1e6


def _verified_per_s(path: Path, signer: Signer, root: bytes) -> float:
    store = SqliteStore.open(path)
    with acting(ALICE), store.writing() as connection:
        store.record(connection, *[DECISION] * VERIFIED)
    terms = AuditTerms(
        signer=signer, environment="test", own="", checkpoint_every_s=60.0, retention=timedelta(days=365)
    )
    log = AuditLog(store=store, terms=terms, roots=lambda: [root], telemetry=Telemetry(), clock=_now)
    started = time.perf_counter()
    verdict, _ = asyncio.run(log.verify([]))
    took_s = time.perf_counter() - started
    store.close()
    if not verdict.is_whole or verdict.entries < VERIFIED:
        raise RuntimeError(f"expected a whole log, got {verdict.findings}")
    return verdict.entries / took_s


def rows() -> list[Row]:
    """Measure and return the rows for build/bench.json."""
    with tempfile.TemporaryDirectory(prefix="agentfactory-bench-") as place:
        directory = Path(place)
        installation = make_installation(directory / "installation")
        store = SqliteStore.open(directory / "state.db")
        raw, durable = _raw(directory / "raw.db"), _durable(store)
        rates: dict[str, list[float]] = {"raw": [], "durable": []}
        for _ in range(ROUNDS):
            rates["raw"].append(_rate(raw, COMMITS))
            rates["durable"].append(_rate(durable, COMMITS))
        refusals = asyncio.run(_refusals_per_s(store))
        certificate = installation.tls(Identity.person("factory.test", "alice")).certificate.read_bytes()
        per_call_us = asyncio.run(_per_call_us(store, certificate))
        length = statistics.median(len(line) for line in audit_lines(directory / "state.db"))
        store.close()
        verified = _verified_per_s(directory / "verified.db", installation.online.snapshot, installation.trust.roots[0])
    raw_per_s, durable_per_s = statistics.median(rates["raw"]), statistics.median(rates["durable"])
    ratio = durable_per_s / raw_per_s
    return [
        _row("audit: durable entries, one transaction each", round(durable_per_s), "/s"),
        _row("audit: raw SQLite durable commits of a row of that length", round(raw_per_s), "/s"),
        {
            "name": "audit: durable entries against raw SQLite commits",
            "value": round(ratio, 3),
            "unit": "x",
            "bar": RATIO_BAR,
            "ok": ratio >= RATIO_BAR,
        },
        _row(f"audit: refusals of {AT_ONCE} callers at once, durable before each answer", round(refusals), "/s"),
        _row("audit: cost of a call that only reads", round(per_call_us, 2), "us"),
        _row("audit: entries verified", round(verified), "/s"),
        _row("audit: length of an entry, median", length, "B"),
    ]


def _row(name: str, value: float, unit: str) -> Row:
    return {"name": name, "value": value, "unit": unit, "bar": None, "ok": True}


if __name__ == "__main__":
    for one in rows():
        print(json.dumps(one, ensure_ascii=False))
