"""The catalogue's agents as tests run them: Python sources natively on the SDK's fake host, the module on wasmtime."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from agentfactory_sdk.testing import FakeHost, LoadedAgent, load

from tests.unit.catalog.hardware_command import run_hardware

CATALOG = Path(__file__).resolve().parents[3] / "templates" / "catalog"
SOURCES = ("documentation/documentaliste", "software/genie_logiciel", "orchestration/superviseur")
Describe = Callable[..., Any]


@cache
def source_agent(name: str, config: str = "{}") -> LoadedAgent:
    return load(CATALOG / name / "agent.py", FakeHost(config=json.loads(config)))


def describe(name: str, text: str | dict[str, Any], **config: Any) -> Any:
    """The parsed answer of one source agent."""
    given = text if isinstance(text, str) else json.dumps(text)
    return json.loads(source_agent(name, json.dumps(config)).process(given))


@pytest.fixture(scope="session")
def documentaliste() -> Describe:
    return lambda text, **config: describe("documentation/documentaliste", text, **config)


@pytest.fixture(scope="session")
def genie() -> Describe:
    return lambda text, **config: describe("software/genie_logiciel", text, **config)


@pytest.fixture(scope="session")
def hardware() -> Describe:
    def run(text: str | bytes) -> Any:
        code, output, errors = run_hardware(text.encode() if isinstance(text, str) else text)
        assert (code, errors) == (0, "")
        return json.loads(output)

    return run
