"""``make bench``: every bar of the design as a ratio measured in this run; prints a table and writes build/bench.json.

Exit status 1 when a bar was missed: numbers are compared within one run only, since machines are shared and noisy.
"""

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from bench import bench_access, bench_audit, bench_guests, bench_languages, bench_node, bench_publish

OUTPUT: Final = Path(__file__).resolve().parent.parent / "build" / "bench.json"
SANDBOX_OUTPUT: Final = OUTPUT.with_name("bench-sandbox.json")
IN_FLIGHT: Final = 10_000

Row = dict[str, Any]


def _node_rows() -> list[Row]:
    return asyncio.run(bench_node.rows())


def _language_rows() -> list[Row]:
    return asyncio.run(bench_languages.rows())


def _guest_rows() -> list[Row]:
    return asyncio.run(bench_guests.rows())


def _sandbox_rows() -> list[Row]:
    """In a process of its own: it counts the memory of what it starts."""
    SANDBOX_OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "bench.bench_sandbox", "--in-flight", str(IN_FLIGHT), "-o", str(SANDBOX_OUTPUT)]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    rows: list[Row] = json.loads(SANDBOX_OUTPUT.read_text())
    return rows


def _show(row: Row) -> None:
    bar = "" if row["bar"] is None else f"  bar {row['bar']:g}  {'ok' if row['ok'] else 'MISSED'}"
    print(f"{row['name']:<76} {row['value']:>12,.3f} {row['unit']:<4}{bar}", flush=True)


def main() -> None:
    started = time.monotonic()
    rows: list[Row] = []
    for measure in (
        _node_rows,
        _language_rows,
        bench_publish.rows,
        bench_access.rows,
        bench_audit.rows,
        _sandbox_rows,
        _guest_rows,
    ):
        found = measure()
        rows += found
        for row in found:
            _show(row)
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
    missed = [row["name"] for row in rows if not row["ok"]]
    took = time.monotonic() - started
    print(f"{len(rows)} figures in {took:.0f} s, {len(missed)} bars missed; written to {OUTPUT.name}")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
