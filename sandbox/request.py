"""What is handed to a worker: compiled code once, then invocations of it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from sandbox.limits import SandboxLimits
from sandbox.nature import Order
from sandbox.outcome import Outcome

Abi = Literal["component", "image", "command"]
NO_CONFIG = b"{}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledCode:
    """Native code made from one module by one engine: trusted bytes, never taken from a network.

    ``engine_fingerprint`` must equal the worker's own (``sandbox.engine.fingerprint``), else loading is refused.
    """

    code: bytes = field(repr=False)
    abi: Abi
    module_sha256: str
    engine_fingerprint: str


@dataclass(slots=True)
class FuelMeter:
    """Fuel of a running invocation that may have others work for it.

    ``used`` is what its guest had burned at its last host call, ``charged`` what others burned on its account: whoever
    carries out a host call adds to it, and the guest's fuel is so much less when the call returns.
    """

    used: int = 0
    charged: int = 0


@dataclass(slots=True, kw_only=True)  # never changed; not frozen because that triples what making one costs
class InvocationRequest:
    """One call of loaded code.

    ``source`` is the author's source for the abi ``image``; ``config`` is JSON; ``granted`` are full interface names
    such as ``agentfactory:runtime/kv@0.1.0``. With ``process=False`` the code is instantiated and, for an image,
    ``load`` is called, but nothing is processed: a dry run, whose output is empty. With ``stream_logs`` log lines are
    also told while the guest runs. ``meter``, if there is one, is kept up to date while it runs; a request with a meter
    is for one invocation. An ``order`` has it recorded or replayed; a replay gets ``extra_ms`` beyond its limit of
    time: the machine that recorded it may have been faster. ``on_late`` of a request with an order hears how an
    invocation ended that was cancelled: nobody awaits that any more.
    """

    code_id: str
    abi: Abi
    source: bytes | None = field(default=None, repr=False)
    input: bytes = field(default=b"", repr=False)
    config: bytes = field(default=NO_CONFIG, repr=False)
    limits: SandboxLimits = field(default_factory=SandboxLimits)
    granted: frozenset[str] = frozenset()
    invocation_id: str = ""
    trace_context: str = ""
    process: bool = True
    stream_logs: bool = False
    meter: FuelMeter | None = None
    order: Order | None = None
    extra_ms: int = 0
    on_late: Callable[[Outcome], None] | None = None


class HostCalls(Protocol):
    """Carries out the host calls of one invocation."""

    async def call(self, interface: str, function: str, argument: bytes) -> bytes:
        """Return the JSON answer to one host call, ``{"ok": …}`` or ``{"error": {"kind", "message"}}``.

        It is cancelled when the invocation ends first (deadline, cancellation, death of the worker). What it raises
        stops the guest and leaves ``Worker.invoke``.
        """
        ...
