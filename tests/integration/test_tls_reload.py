"""A server whose certificate is renewed lives through many handshakes: gRPC frees what it replaces, without a lock."""

import contextlib
import socket
import ssl
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from service.identity import Identity
from service.local_ca import LocalCa

SERVER = """
import asyncio, sys
from pathlib import Path
import grpc.aio
from service.tls import ReloadingCredentials, TlsFiles

async def serve(directory):
    names = {name: directory / f"{name}.pem" for name in ("certificate", "key", "authorities")}
    reloading = ReloadingCredentials(TlsFiles(**names))
    server = grpc.aio.server()
    port = server.add_secure_port("127.0.0.1:0", reloading.credentials)
    await server.start()
    print(port, flush=True)
    certificates = [(directory / f"{name}.pem").read_bytes() for name in ("certificate", "renewed")]
    for number in range(10_000):
        await asyncio.sleep(0.1)
        names["certificate"].write_bytes(certificates[number % 2])
        assert reloading.refresh() or number == 0

asyncio.run(serve(Path(sys.argv[1])))
"""
CALLERS, HANDSHAKES = 16, 60


def test_a_server_lives_through_handshakes_while_its_certificate_is_renewed(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    authority = LocalCa.create(tmp_path / "ca", trust_domain="factory.test", now=now)
    issued = authority.issue(Identity.node("factory.test", "n1"), now=now)
    for name, content in {
        "certificate": issued.certificate,
        "renewed": issued.certificate + b"\n",
        "key": issued.key,
        "authorities": authority.certificate,
    }.items():
        path = tmp_path / f"{name}.pem"
        path.write_bytes(content)
        path.chmod(0o600)
    command = [sys.executable, "-c", SERVER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline())

            def shake_hands(number: int) -> int:
                """Connect, every other time without a certificate, which ends on the server's side."""
                context = ssl.create_default_context(cafile=str(tmp_path / "authorities.pem"))
                context.check_hostname = False
                context.set_alpn_protocols(["h2"])
                if number % 2:
                    context.load_cert_chain(tmp_path / "renewed.pem", tmp_path / "key.pem")
                shaken = 0
                for _ in range(HANDSHAKES):
                    with (
                        contextlib.suppress(OSError),
                        socket.create_connection(("127.0.0.1", port), timeout=20) as raw,
                        context.wrap_socket(raw) as secured,
                    ):
                        secured.settimeout(0.2)
                        shaken += 1
                        secured.recv(16)
                return shaken

            with ThreadPoolExecutor(CALLERS) as callers:
                counts = list(callers.map(shake_hands, range(CALLERS)))
            time.sleep(0.3)
            assert server.poll() is None, f"expected a server that lives, got {server.returncode}"
            assert sum(counts) > CALLERS * HANDSHAKES // 4
        finally:
            server.kill()
