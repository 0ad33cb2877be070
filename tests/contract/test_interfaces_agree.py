"""What admission lets through is what the sandbox has: the two sides keep separate lists on purpose."""

import pytest

from sandbox import interfaces, wasi2
from sandbox.component_linker import interface_for
from templates import capabilities

CANDIDATES = [
    *wasi2.INTERFACES,
    "wasi:cli/run",
    "wasi:cli/command",
    "wasi:clocks/timezone",
    "wasi:http/types",
    "wasi:http/outgoing-handler",
    "wasi:io/world",
    "wasi:keyvalue/store",
    "wasi:random/secure",
    "wasi:sockets/raw",
    "wasi:filesystem/world",
]


@pytest.mark.parametrize("name", CANDIDATES)
@pytest.mark.parametrize("version", ["", "@0.2.0", "@0.2.9", "@0.2.42", "@0.2.100", "@0.2.01", "@0.3.0", "@0.2.0-rc"])
def test_both_sides_know_the_same_wasi(name: str, version: str) -> None:
    admitted = capabilities._WASI_0_2.fullmatch(name + version) is not None
    assert admitted == (interface_for(name + version) is not None)


def test_both_sides_know_the_same_host_interfaces() -> None:
    ours = {name.removeprefix("agentfactory:runtime/").partition("@")[0] for name in interfaces.INTERFACES}
    assert ours <= capabilities.ALWAYS_OPEN | capabilities.GRANTED
    assert interfaces.GRANTED_ALWAYS == capabilities.ALWAYS_OPEN
    assert interfaces.VERSION == capabilities.HOST_VERSION
