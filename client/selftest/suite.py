"""The real house of the attacks: a throw-away node with every guest approved and active, canaries, and neighbours."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agentfactory.node.v1 import node_pb2
from agentfactory.node.v1.node_pb2_grpc import NodeServiceStub

from client.selftest.attack import BreachError, Case, Guest, template_names
from client.selftest.exports import Exports
from client.selftest.guests import ORDINARY
from client.selftest.hostile_model import KEY, HostileModel
from client.selftest.hostile_service import HOST, PLACEHOLDER, SECRET, HostileService
from client.selftest.neighbours import TEMPLATE, Measured, Neighbours
from client.selftest.node import Node
from client.selftest.stage import ATTACKER, OTHER, Canaries, Connections, Stage
from client.selftest.world import World
from service.tls import channel_credentials

KEEPER: Final = "attacks/keeper"
_KEEPER: Final = Guest(
    python="""
from agentfactory_sdk import kv, log

KEPT = []

def process(text):
    KEPT.append(text * 100)
    kv.put("canary", text)
    log.info(text)
    return "kept"
""",
    grants={"kv": {"namespace": "canaries", "bytes_max": 65_536}},
)
_STATUS_TIMEOUT_S: Final = 10.0
_DEATH_NOTICED_S: Final = 0.3


@dataclass(slots=True, kw_only=True)
class Suite:
    """`client.selftest.runner.House` over a real node. Made by `started`."""

    world: World
    node: Node
    neighbours: Neighbours
    connections: Connections
    canaries: Canaries
    service: HostileService
    model: HostileModel
    exports: Exports

    def stage(self, case: Case) -> Stage:
        return Stage(
            case=case,
            node=self.node,
            connections=self.connections,
            canaries=self.canaries,
            service=self.service,
            model=self.model,
            exports=self.exports,
        )

    async def start_neighbours(self) -> None:
        await self.neighbours.start()

    async def stop_neighbours(self) -> Measured:
        return await self.neighbours.stop()

    async def ailments(self, case: Case) -> Sequence[str]:
        """Say what is wrong: it does not serve, a worker died that should not have, or the log is not clean."""
        problems = []
        if not await asyncio.to_thread(self.node.is_ready):
            problems.append("expected a node that serves, got one that does not")
        if case.attack.kills_worker:
            await asyncio.sleep(_DEATH_NOTICED_S)  # so that its line is this case's, and not the next one's
        lines = await asyncio.to_thread(self.node.new_log)
        return problems + ailments_of(lines, canaries=self.canaries, may_kill=case.attack.kills_worker)

    async def isolation(self) -> str:
        """Return the weakest level that any worker reached."""
        status = await self.status()
        from sandbox.process import LEVELS

        reached = {worker.isolation for worker in status.workers}
        return next((level for level in LEVELS if level in reached), "")

    async def status(self) -> node_pb2.NodeStatus:
        """Ask the node about itself, as a person."""
        import grpc.aio

        async with grpc.aio.secure_channel(self.node.address, channel_credentials(self.world.person())) as channel:
            return await NodeServiceStub(channel).GetNodeStatus(
                node_pb2.GetNodeStatusRequest(), timeout=_STATUS_TIMEOUT_S
            )


def ailments_of(lines: Sequence[str], *, canaries: Canaries, may_kill: bool) -> list[str]:
    """Return what is wrong with lines of a node's log: not JSON, an error of its own, a canary, a death."""
    problems = []
    for line in lines:
        problems += [f"the log shows the canary of {place}" for place in canaries.found_in(line.encode())]
        if not line.isprintable():
            problems.append(f"expected printable lines in the log, got {line[:200]!r}")
        try:
            parsed = json.loads(line)
            level, event = parsed["level"], parsed["event"]
        except (ValueError, KeyError, TypeError):
            problems.append(f"expected JSON in the log, got {line[:200]!r}")
            continue
        if level in {"error", "critical"}:
            problems.append(f"the node logged an error of its own: {line[:400]}")
        if event == "worker_died" and not may_kill:
            problems.append("a worker died")
    return problems


@asynccontextmanager
async def started(
    cases: Sequence[Case], *, directory: Path, tell: Callable[[str], None] = lambda _text: None
) -> AsyncIterator[Suite]:
    """Start a node in ``directory`` whose active templates are every guest of ``cases``; end it on the way out.

    Raises:
        LocalRunError: an image is not built.
        ProcessFailedError: the node did not start.
    """
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(HostileService())
        model = await stack.enter_async_context(HostileModel())
        tell("keys, identities, charter, approvals")
        world = World.make(directory, secret_origin=service.origin)
        exports = Exports.make(directory / "exports")
        secret, key = f"canary-secret-{secrets.token_hex(16)}", f"canary-key-{secrets.token_hex(16)}"
        settings = {
            **_egress(directory, service, {SECRET: f"Bearer {secret}", KEY: key}),
            **exports.settings(attacker=ATTACKER, other=OTHER),
            **model.settings,
        }
        node = Node(world, settings=settings, environment=service.proxy_variables)
        await asyncio.to_thread(_furnish, world, node, cases, service)
        tell(f"starting a node that compiles {len({each.sha256 for each in world.library.values()})} guests")
        stack.callback(node.stop)
        await asyncio.to_thread(node.start)
        connections = Connections(node)
        stack.push_async_callback(connections.close)
        planted = await _plant(connections, node)
        canaries = Canaries(
            {**planted, **exports.canaries, "a secret of the broker": secret, "the key of a language model": key}
        )
        tenants = {tenant: world.service(tenant, "neighbour") for tenant in (ATTACKER, OTHER)}
        neighbours = await stack.enter_async_context(Neighbours(node.address, tenants))
        await asyncio.to_thread(node.new_log)
        yield Suite(
            world=world,
            node=node,
            neighbours=neighbours,
            connections=connections,
            canaries=canaries,
            service=service,
            model=model,
            exports=exports,
        )


def _egress(directory: Path, service: HostileService, values: Mapping[str, str]) -> dict[str, str]:
    """Return the settings of a node whose operator allowed the hostile service, and keeps these secrets."""
    kept = directory / "secrets"
    kept.mkdir(mode=0o700)
    for name, value in values.items():
        (kept / name).touch(mode=0o600)
        (kept / name).write_text(f"{value}\n", encoding="ascii")
    return {
        "private_origins": json.dumps({service.origin: [f"{HOST}/32"]}),
        "secrets_directory": str(kept),
        "http_requests_max": "20",
    }


def _furnish(world: World, node: Node, cases: Sequence[Case], service: HostileService) -> None:
    guests = {TEMPLATE: ORDINARY, KEEPER: _KEEPER} | {name: guest for name, (_, guest) in template_names(cases).items()}
    active = [world.approve(name, guest.placed(PLACEHOLDER, service.origin)) for name, guest in guests.items()]
    imported = node.import_bundle(world.publish(*active))
    if imported.status != 0:
        raise BreachError(f"expected the node to take its first generation, got {imported.text[-1000:]}")


async def _plant(connections: Connections, node: Node) -> dict[str, str]:
    """Put canaries where no attack may look: the node's environment, its disk, another tenant's state and memory."""
    file, kept, earlier = (f"canary-{place}-{secrets.token_hex(16)}" for place in ("file", "state", "earlier"))
    node.store.joinpath("canary").write_text(file, encoding="utf-8")
    node.world.directory.joinpath("canary.txt").write_text(file, encoding="utf-8")
    await connections.factory(OTHER).invoke_template(KEEPER, kept)
    await connections.factory(ATTACKER).invoke_template(KEEPER, earlier)
    return {
        "the node's environment": node.canary,
        "a file of the host": file,
        "another tenant's state": kept,
        "an earlier invocation": earlier,
    }
