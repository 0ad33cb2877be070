"""What is handed to a worker: compiled code once, then invocations of it."""

from dataclasses import dataclass, field
from typing import Literal

from sandbox.limits import SandboxLimits

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
    is for one invocation.
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
