"""Invocations recorded in real workers, for tests of replays."""

import secrets
from dataclasses import replace

from sandbox.nature import Order, RecordOrder, Verdict, read_report
from sandbox.outcome import Outcome
from sandbox.recording import (
    CUT_TAPE,
    STOPPED_FROM_OUTSIDE,
    Provenance,
    RecordedCall,
    RecordedEnd,
    RecordedLine,
    Recording,
    digest,
)
from sandbox.request import CompiledCode, InvocationRequest
from sandbox.supervisor import HostCalls, Worker

TAPE_BYTES_MAX = 1 << 20
PROVENANCE = Provenance(
    invocation_id="0123456789ab",
    tenant="acme",
    caller="spiffe://factory.test/tenant/acme/service/web",
    agent="",
    node="n1",
    generation=1,
    template="docs/recorded@1.0.0",
    template_sha256="0" * 64,
    started="2026-01-01T00:00:00+00:00",
)


class Heard:
    """Keeps what host calls were asked and answered."""

    def __init__(self, host: HostCalls) -> None:
        self.host = host
        self.calls: list[RecordedCall] = []

    async def call(self, interface: str, function: str, argument: bytes) -> bytes:
        answer = await self.host.call(interface, function, argument)
        self.calls.append(
            RecordedCall(
                interface=interface,
                function=function,
                argument_sha256=digest(argument),
                argument_bytes=len(argument),
                answer=answer,
                answer_sha256=digest(answer),
            )
        )
        return answer


async def record(
    worker: Worker,
    request: InvocationRequest,
    host: HostCalls,
    *,
    compiled: CompiledCode,
    tape_bytes_max: int = TAPE_BYTES_MAX,
) -> Recording:
    """Run a request once and return its recording."""
    heard, seed = Heard(host), secrets.token_bytes(32)
    order: Order = RecordOrder(seed=seed, tape_bytes_max=tape_bytes_max)
    request = replace(request, order=order, invocation_id=PROVENANCE.invocation_id)
    outcome = await worker.invoke(request, heard)
    return recording_of(request, outcome, tuple(heard.calls), seed=seed, compiled=compiled)


def recording_of(
    request: InvocationRequest,
    outcome: Outcome,
    calls: tuple[RecordedCall, ...],
    *,
    seed: bytes,
    compiled: CompiledCode,
) -> Recording:
    report = read_report(outcome.report)
    kind = None if outcome.failure is None else outcome.failure.kind
    return Recording(
        provenance=PROVENANCE,
        abi=request.abi,
        module_sha256=compiled.module_sha256,
        source=request.source,
        engine=compiled.engine_fingerprint,
        input=request.input,
        config=request.config,
        granted=request.granted,
        limits=request.limits,
        seed=seed,
        tape=report.tape,
        calls=calls,
        end=RecordedEnd(
            kind=kind,
            message="" if outcome.failure is None else outcome.failure.message,
            output=outcome.output,
            output_sha256="" if outcome.output is None else digest(outcome.output),
            fuel=outcome.usage.fuel,
            host_calls=outcome.usage.host_calls,
            wasi_calls=outcome.usage.wasi_calls,
            from_outside=kind in STOPPED_FROM_OUTSIDE,
            logs=tuple(RecordedLine(line.level, line.message) for line in outcome.logs),
        ),
        cut=frozenset() if report.verdict is Verdict.WHOLE else frozenset({CUT_TAPE}),
    )
