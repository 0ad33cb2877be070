"""Run inside a network namespace of its own, where a globally routable address may stand on the loopback device.

Prints one line of JSON: what became of a request to that address when it is this host's own, and when the connection
leaves from another one, as it does for every server elsewhere.
"""

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path

from data_plane.broker.answers import HostRefusal
from data_plane.broker.origin import Origin
from data_plane.http_egress import EgressLimits
from tests.egress_world import FixedResolver, egress_of
from tests.http_server import answers, http_server, ok, server_tls

PUBLIC, SOURCE = "93.184.216.34", "10.9.9.9"


def configure(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


async def attempt(origin: str, ca_file: Path) -> str:
    egress = egress_of({}, resolver=FixedResolver([PUBLIC]), ca_file=ca_file)
    try:
        async with egress.request(
            Origin.parse(origin), "GET", "/", limits=EgressLimits(), deadline=time.monotonic() + 5
        ) as response:
            return (await response.read()).decode()
    except HostRefusal as refusal:
        return f"{refusal.kind}: {refusal.message}"


async def main(directory: Path) -> None:
    configure("link", "set", "lo", "up")
    configure("address", "add", f"{PUBLIC}/32", "dev", "lo")
    configure("address", "add", f"{SOURCE}/32", "dev", "lo")
    tls = server_tls(directory)
    async with http_server(answers(ok(b"reached")), tls=tls, address=PUBLIC) as server:
        own = await attempt(server.origin, tls.ca_file)
        seen = len(server.seen)
        configure("route", "replace", "local", PUBLIC, "dev", "lo", "src", SOURCE, "table", "local")
        other = await attempt(server.origin, tls.ca_file)
    sys.stdout.write(json.dumps({"own": own, "seen": seen, "other": other}))


asyncio.run(main(Path(sys.argv[1])))
