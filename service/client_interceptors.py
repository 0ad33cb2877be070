"""Client side of `service.interceptors`: trace context goes out, statuses come back as `RemoteError`, safe calls are retried."""

from collections.abc import Sequence
from dataclasses import dataclass

import grpc
import grpc.aio


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Which methods ("/package.Service/Method") may be sent again after UNAVAILABLE or RESOURCE_EXHAUSTED, how often, how patiently.

    Nothing is retried past the call's deadline; the server's RetryInfo is honoured.
    """

    idempotent_methods: frozenset[str] = frozenset()
    attempts_max: int = 4
    backoff_first_s: float = 0.05
    backoff_max_s: float = 2.0


def aio_interceptors(retry: RetryPolicy, *, default_timeout_s: float = 30.0) -> Sequence[grpc.aio.ClientInterceptor]:
    """Return what to pass to ``grpc.aio.secure_channel(interceptors=…)``."""
    raise NotImplementedError


def intercept_channel(channel: grpc.Channel, retry: RetryPolicy, *, default_timeout_s: float = 30.0) -> grpc.Channel:
    """Return ``channel`` with the same behaviour for synchronous callers."""
    raise NotImplementedError
