"""What the guard and the client's channel add to a unary call: a bare echo, the same behind them, in one run.

``python -m bench.bench_interceptor`` prints medians over mutual TLS 1.3 on loopback, server and client in one process
each, in rounds that take turns so that a busy machine slows all of them alike.
"""

import argparse
import asyncio
import multiprocessing
import statistics
import tempfile
import time
from datetime import UTC, datetime
from ipaddress import ip_address
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from service.client_interceptors import RetryPolicy, intercept_aio_channel
from service.guard_ports import Context
from service.identity import Identity
from service.interceptors import ServerGuard
from service.local_ca import LocalCa
from service.logs import LogFormat, LogLevel, configure_logs
from service.telemetry import Telemetry
from service.tls import TlsFiles, channel_credentials, server_credentials

METHOD = "/bench.Echo/Unary"
ROUNDS = 40
CALLS = 50


async def _echo(request: bytes, _context: Context) -> bytes:
    return request


def _serve(files: TlsFiles, ready: Connection, log: Path, kinds: list[str]) -> None:
    asyncio.run(_serve_all(files, ready, log, kinds))


async def _serve_all(files: TlsFiles, ready: Connection, log: Path, kinds: list[str]) -> None:
    with log.open("w", buffering=1) as stream:
        ports, servers = [], []
        for kind in kinds:
            level = LogLevel.INFO if kind == "guarded" else LogLevel.WARNING
            configure_logs(level=level, form=LogFormat.JSON, stream=stream)
            guard = ServerGuard(trust_domain="bench", authorise=lambda _identity, _method: None, telemetry=Telemetry())
            server = grpc.aio.server(interceptors=[] if kind == "bare" else [guard])
            handlers: dict[str, Any] = {"Unary": grpc.unary_unary_rpc_method_handler(_echo)}
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Echo", handlers),))
            ports.append(server.add_secure_port("127.0.0.1:0", server_credentials(files)))
            await server.start()
            servers.append(server)
            guard._log = guard._log.bind()  # noqa: SLF001 -- fixes the level of this server's logger
        ready.send(ports)
        await asyncio.get_running_loop().run_in_executor(None, ready.recv)
        for server in servers:
            await server.stop(None)


async def _measure(ports: list[int], kinds: list[str], files: TlsFiles) -> dict[str, list[float]]:
    took: dict[str, list[float]] = {kind: [] for kind in (*kinds, "guarded, client channel")}
    calls: dict[str, Any] = {}
    channels = []
    for kind, port in zip(kinds, ports, strict=True):
        channel = grpc.aio.secure_channel(f"127.0.0.1:{port}", channel_credentials(files))
        channels.append(channel)
        plain: Any = channel
        calls[kind] = plain.unary_unary(METHOD)
        if kind == "guarded":
            wrapped: Any = intercept_aio_channel(channel, RetryPolicy())
            calls["guarded, client channel"] = wrapped.unary_unary(METHOD)
    for _ in range(ROUNDS + 2):
        for kind, call in calls.items():
            for _ in range(CALLS):
                started = time.perf_counter()
                await call(b"x" * 64, timeout=10)
                took[kind].append(time.perf_counter() - started)
    for channel in channels:
        await channel.close()
    return {kind: values[2 * CALLS :] for kind, values in took.items()}


def measure() -> dict[str, float]:
    """Return the median of each kind, in microseconds."""
    kinds = ["bare", "quiet", "guarded"]
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        now = datetime.now(UTC)
        authority = LocalCa.create(directory / "ca", trust_domain="bench", now=now)
        server = authority.issue(Identity.node("bench", "n"), now=now, addresses=[ip_address("127.0.0.1")])
        client = authority.issue(Identity.service("bench", "t", "s"), now=now)
        server_files, client_files = server.write(directory / "server"), client.write(directory / "client")
        ours, theirs = multiprocessing.Pipe()
        spawn = multiprocessing.get_context("spawn")
        process = spawn.Process(target=_serve, args=(server_files, theirs, directory / "log", kinds))
        process.start()
        try:
            took = asyncio.run(_measure(ours.recv(), kinds, client_files))
        finally:
            ours.send(None)
            process.join()
    return {kind: statistics.median(values) * 1e6 for kind, values in took.items()}


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    medians = measure()
    for kind, median_us in medians.items():
        print(f"{kind:26} {median_us:7.0f} us  {median_us / medians['bare']:.2f} x")


if __name__ == "__main__":
    main()
