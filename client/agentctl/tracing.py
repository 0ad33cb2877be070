"""One span for each command, where the environment names a collector in OpenTelemetry's own words; nothing otherwise.

Variables: OTEL_EXPORTER_OTLP_TRACES_ENDPOINT or OTEL_EXPORTER_OTLP_ENDPOINT (OTLP over gRPC), OTEL_SDK_DISABLED, and
TRACEPARENT, with which a script or a CI job hands its own trace to the commands that it runs.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from client.agentctl.output import note

if TYPE_CHECKING:
    from service.telemetry import Telemetry


def collector_of(environment: Mapping[str, str], *, tell: Callable[[str], None]) -> str | None:
    """Return the collector that the user configured, if any; ``tell`` why it is not used, if it cannot be.

    These variables are set for many programs: what means nothing here must not stop agentctl.
    """
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    endpoint = environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or environment.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    if not endpoint:
        return None
    from service.otlp_export import checked_endpoint
    from templates.reasons import AgentFactoryError

    try:
        return checked_endpoint(endpoint)
    except AgentFactoryError as error:
        tell(f"no trace is sent: {error.message}")
        return None


@contextmanager
def traced(environment: Mapping[str, str], command: Callable[[], str]) -> Iterator[None]:
    """Let the calls of a command belong to one trace: the user's, or one that begins here.

    ``command`` is asked at the end for its name, "change approve"; arguments are nobody's business.
    """
    endpoint, parent = collector_of(environment, tell=note), environment.get("TRACEPARENT", "")
    if endpoint is None and not parent:
        yield
        return
    from service.telemetry import ServiceName, continued, received_trace_context, start_telemetry

    parent = received_trace_context(parent)
    if endpoint is None:
        with continued(parent):
            yield
        return
    telemetry = start_telemetry(
        service_name=ServiceName.AGENTCTL, instance=str(os.getpid()), otlp_endpoint=endpoint, brief=True
    )
    try:
        with _spanned(telemetry, command, parent):
            yield
    finally:
        telemetry.close()


@contextmanager
def _spanned(telemetry: "Telemetry", command: Callable[[], str], parent: str) -> Iterator[None]:
    from service.telemetry import Field, SpanName

    stopped: click.exceptions.Exit | None = None
    with telemetry.span(SpanName.COMMAND, parent=parent) as span:
        try:
            yield
        except click.exceptions.Exit as stop:  # an ordinary end, not a failure of the span
            span.set(Field.EXIT_CODE, stop.exit_code)
            stopped = stop
        finally:
            span.set(Field.COMMAND, command())
    if stopped is not None:
        raise stopped
