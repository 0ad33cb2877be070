"""agentctl traces a command only when it is told where to, and then nothing stops the command."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import click
import pytest

from client.agentctl.tracing import collector_of, traced
from service.telemetry import current_trace_context
from tests.recorded_tracing import PARENT

OTLP, OTLP_TRACES = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
LOCAL, REMOTE = "http://127.0.0.1:4317", "https://collector.test:4317"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({OTLP: ""}, None),
        ({OTLP: LOCAL}, LOCAL),
        ({OTLP: LOCAL, OTLP_TRACES: REMOTE}, REMOTE),
        ({OTLP: LOCAL, "OTEL_SDK_DISABLED": "TRUE"}, None),
        ({OTLP: LOCAL, "OTEL_SDK_DISABLED": "false"}, LOCAL),
    ],
)
def test_the_collector_is_the_one_that_the_standard_variables_name(
    environment: Mapping[str, str], expected: str | None
) -> None:
    told: list[str] = []
    assert collector_of(environment, tell=told.append) == expected
    assert told == []


def test_a_collector_that_cannot_be_used_is_said_and_does_no_harm(capsys: pytest.CaptureFixture[str]) -> None:
    with traced({OTLP: "http://collector.test:4317"}, lambda: "node list"):
        assert current_trace_context() == ""
    assert "no trace is sent" in capsys.readouterr().err


@pytest.mark.parametrize(("sent", "continued"), [(PARENT, PARENT), ("", ""), ("00-nothing", ""), ("x" * 1_000_000, "")])
def test_a_scripts_trace_is_continued_if_it_is_one(sent: str, continued: str) -> None:
    with traced({"TRACEPARENT": sent}, lambda: "node list"):
        assert current_trace_context() == continued
    assert current_trace_context() == ""


def test_the_exit_status_of_a_command_is_not_lost() -> None:
    environment = {OTLP: "http://127.0.0.1:1", "TRACEPARENT": PARENT}
    contexts = []

    def waits() -> None:
        with traced(environment, lambda: "template publish"):
            contexts.append(current_trace_context())
            raise click.exceptions.Exit(10)

    with pytest.raises(click.exceptions.Exit) as stop:
        waits()
    assert stop.value.exit_code == 10
    assert contexts[0] != PARENT
    assert contexts[0].startswith(PARENT[:36])


def test_a_command_without_a_collector_imports_no_telemetry(tmp_path: Path) -> None:
    (tmp_path / "template.json").write_text("{}")
    script = (
        "import sys\n"
        "from client.agentctl.main import cli\n"
        "try:\n    cli.main(['template', 'validate', sys.argv[1]], standalone_mode=False)\n"
        "except Exception:\n    pass\n"
        "print('heavy:', [m for m in ('opentelemetry', 'prometheus_client', 'grpc') if m in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "template.json")],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert "heavy: []" in done.stdout, done.stdout + done.stderr
