"""A node without language models: what a broker in a test needs beside what is tested."""

from data_plane.admission.circuit_breaker import BreakerSettings, CircuitBreakers
from data_plane.broker.llm_cache import AnswerCache, CacheBounds
from data_plane.llm_calls import LlmCalls
from service.tasks import TaskSupervisor
from service.telemetry import Telemetry


def no_models() -> LlmCalls:
    return LlmCalls(
        bindings={},
        use=None,
        cache=AnswerCache(CacheBounds(ttl_s=0, entries_max=0, bytes_max=0), lambda: 0.0),
        breakers=CircuitBreakers(BreakerSettings()),
        tasks=TaskSupervisor(),
        telemetry=Telemetry(),
        clock=lambda: 0.0,
        monotonic=lambda: 0.0,
        streams_max=0,
    )
