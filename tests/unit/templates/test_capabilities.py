from typing import Any

import pytest

from templates.capabilities import (
    Capabilities,
    ForbiddenImportError,
    MemoryReport,
    ModuleMemoryError,
    ModuleMismatchError,
    ModuleReport,
    derive,
    host_interface,
)
from templates.problems import InvalidDocumentError
from templates.resolved import ResolvedTemplate
from tests.unit.templates.documents import COMMAND, MODULE, SOURCE, codes, report, resolved

KV = {"kv": {"namespace": "notes", "bytes_max": 100}}
EVERY_HOST_INTERFACE = tuple(host_interface(name) for name in ("log", "context", "kv", "agents"))
IMAGE_REPORT = report(
    sha256="b" * 64,
    length=20_000_000,
    imports=("wasi:cli/stdout@0.2.0", *EVERY_HOST_INTERFACE),
    exports=("load", "process"),
)
COMMAND_REPORT = report(kind="module", imports=("wasi_snapshot_preview1.fd_write",), exports=("_start", "memory"))


def _command(**members: Any) -> ResolvedTemplate:
    return resolved(code=COMMAND, **members)


def test_a_module_reaches_what_it_imports() -> None:
    module = report(imports=("wasi:io/streams@0.2.3", host_interface("log"), host_interface("kv")))
    found = derive(resolved(code=MODULE, grants={**KV, "agents": ["code/*"]}, callers=["docs/*"]), module)
    assert found.abi == "component"
    assert found.interfaces == (host_interface("kv"), host_interface("log"))
    assert found.imports == tuple(sorted(module.imports))
    assert found.grants.kv is not None
    assert [str(caller) for caller in found.callers] == ["docs/*"]


def test_source_reaches_what_its_grants_open_whatever_its_image_imports() -> None:
    without, with_kv = (derive(resolved(code=SOURCE, grants=grants), IMAGE_REPORT) for grants in ({}, KV))
    assert without.abi == "image"
    assert without.interfaces == (host_interface("context"), host_interface("log"))
    assert set(with_kv.interfaces) - set(without.interfaces) == {host_interface("kv")}
    assert without.imports == with_kv.imports


def test_a_command_reaches_all_of_its_grants_through_the_one_call() -> None:
    call = report(
        kind="module",
        imports=("agentfactory.call", "wasi_snapshot_preview1.fd_read"),
        exports=("_start", "memory"),
    )
    assert derive(_command(grants=KV), call).interfaces == (host_interface("kv"),)
    assert derive(_command(), COMMAND_REPORT).interfaces == ()
    assert derive(_command(grants=KV), COMMAND_REPORT).interfaces == ()
    assert derive(_command(), call).interfaces == ()


def test_an_abstract_template_can_do_nothing() -> None:
    found = derive(resolved(), None)
    assert (found.abi, found.code, found.imports, found.interfaces) == ("abstract", None, (), ())


def test_an_image_is_itself_a_template() -> None:
    image = resolved(domain="images", name="cpython", code=MODULE)
    found = derive(image, report(imports=EVERY_HOST_INTERFACE, exports=("load", "process")))
    assert found.abi == "component"
    assert found.interfaces == (host_interface("context"), host_interface("log"))
    with pytest.raises(ModuleMismatchError, match="export load"):
        derive(image, report(imports=EVERY_HOST_INTERFACE))


def test_the_name_of_a_forbidden_import_steers_no_terminal_and_is_short() -> None:
    with pytest.raises(ForbiddenImportError) as refused:
        derive(resolved(code=MODULE), report(imports=("env.\x1b[2J\r\nforged \u202e", "env." + "x" * 100_000)))
    assert refused.value.message.isprintable()
    assert "env.\\u001b[2J\\r\\nforged \\u202e" in refused.value.message
    assert len(refused.value.message) < 1_000


@pytest.mark.parametrize(
    "forbidden",
    [
        host_interface("kv"),
        host_interface("agents"),
        host_interface("http"),
        host_interface("files"),
        "agentfactory:runtime/log@0.2.0",
        "agentfactory:runtime/log@0.1.00",
        "agentfactory:runtime/log",
        "agentfactory:runtime/Log@0.1.0",
        "agentfactory:runtime/1og@0.1.0",
        "agentfactory:runtime /log@0.1.0",
        "agentfactory:runtime/log@0.1.0\n",
        "wasi:http/outgoing-handler@0.2.0",
        "wasi:io/streams@0.3.0",
        "wasi:io/streams@0.2.0-rc",
        "wasi:io/streams@0.2",
        "wasi:io/streams",
        "wasi:io/stream@0.2.0",
        "wasi:sockets/raw@0.2.0",
        "wasi:cli/environment@0.2.01",
        "wasi_snapshot_preview1.fd_write",
        "agentfactory.call",
        "env.system",
        "",
    ],
)
def test_an_import_beyond_the_grants_or_of_another_version_is_forbidden(forbidden: str) -> None:
    with pytest.raises(ForbiddenImportError) as refused:
        derive(resolved(code=MODULE), report(imports=(host_interface("log"), forbidden)))
    assert refused.value.metadata["imports"] == forbidden.replace("\n", "\\n")
    if forbidden not in {host_interface("kv"), host_interface("agents"), host_interface("http")}:
        with pytest.raises(ForbiddenImportError):
            derive(
                resolved(domain="images", name="cpython", code=MODULE),
                report(imports=(forbidden,), exports=("load", "process")),
            )


@pytest.mark.parametrize(
    "forbidden",
    [
        "wasi_unstable.fd_write",
        "wasi_snapshot_preview1.sock_open",
        "wasi_snapshot_preview1.fd_",
        "env.fd_write",
        "wasi:io/poll@0.2.0",
    ],
)
def test_a_command_imports_preview_1_only(forbidden: str) -> None:
    with pytest.raises(ForbiddenImportError):
        derive(_command(grants=KV), report(kind="module", imports=(forbidden,), exports=("_start", "memory")))


def test_a_look_alike_is_told_apart_by_name() -> None:
    with pytest.raises(ForbiddenImportError, match=r"nearest permitted one is agentfactory:runtime/log@0\.1\.0"):
        derive(resolved(code=MODULE), report(imports=("agentfactory:runtime/1og@0.1.0",)))


@pytest.mark.parametrize(
    ("template", "module"),
    [
        (resolved(code=MODULE), report(sha256="d" * 64)),
        (resolved(code=MODULE), report(length=3_001)),
        (resolved(code=MODULE), report(kind="module")),
        (resolved(code=MODULE), report(exports=("run",))),
        (resolved(code=MODULE), None),
        (resolved(), report()),
        (resolved(code=SOURCE), report()),
        (resolved(code=SOURCE), report(sha256="b" * 64, length=20_000_000)),
        (_command(), report()),
        (_command(), report(kind="module", imports=(), exports=("_start",))),
        (_command(), report(kind="module", imports=(), exports=("memory",))),
    ],
)
def test_a_report_on_something_else_is_refused(template: ResolvedTemplate, module: ModuleReport | None) -> None:
    with pytest.raises(ModuleMismatchError, match=r"^expected .*, got"):
        derive(template, module)


def test_the_memories_of_a_module_count_together() -> None:
    half = MemoryReport(bytes_min=65_536, bytes_max=None)
    template = resolved(code=MODULE, limits={"memory_bytes": 131_072})
    assert derive(template, report(memories=(half, half))).limits.memory_bytes == 131_072
    with pytest.raises(ModuleMemoryError, match="at most 131072 bytes of memory, got 196608"):
        derive(template, report(memories=(half, half, half)))


def test_reports_are_written_as_the_inspection_writes_them() -> None:
    module = report(memories=(MemoryReport(bytes_min=65_536, bytes_max=131_072),))
    assert ModuleReport.from_json(module.to_json()) == module
    assert module.to_json()["memories"] == [{"bytes_min": 65_536, "bytes_max": 131_072}]


@pytest.mark.parametrize("code", [None, MODULE, SOURCE])
def test_capabilities_that_are_written_are_read_again(code: Any) -> None:
    module = {None: None, MODULE: report(), SOURCE: IMAGE_REPORT}[code]
    found = derive(resolved(code=code, grants=KV, callers=["docs/*"]), module)
    assert Capabilities.from_json(found.to_json()) == found
    assert Capabilities.from_json(found.to_json()).to_bytes() == found.to_bytes()


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"template": "documentation/x"}, "INVALID_VALUE"),
        ({"abi": "native"}, "INVALID_VALUE"),
        ({"imports": "all"}, "WRONG_TYPE"),
        ({"extra": 1}, "UNKNOWN_FIELD"),
        ({"imports": ["b", "a"]}, "NOT_CANONICAL"),
        ({"interfaces": ["a", "a"]}, "NOT_CANONICAL"),
        ({"callers": ["docs/*", "code/*"]}, "NOT_CANONICAL"),
        ({"grants": {"agents": []}}, "NOT_CANONICAL"),
    ],
)
def test_what_is_not_capabilities_is_refused(members: dict[str, Any], code: str) -> None:
    with pytest.raises(InvalidDocumentError) as refused:
        Capabilities.from_json({**derive(resolved(), None).to_json(), **members})
    assert {each for each, _ in codes(refused.value)} == {code}


def test_missing_members_of_capabilities_are_refused() -> None:
    whole = derive(resolved(), None).to_json()
    for name in whole:
        with pytest.raises(InvalidDocumentError):
            Capabilities.from_json({other: value for other, value in whole.items() if other != name})
