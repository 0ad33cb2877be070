"""Run an unsigned template once on the author's machine: the node's sandbox, without a node."""

import asyncio
import hashlib
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from client.documents import read_file
from client.inspection_cache import ModuleRefusedError
from client.local_files import LocalFiles, LocalMount
from client.local_grants import refuse_unasked
from client.local_kv import LocalHost
from client.publishing import CodeFileError, code_file
from templates.canonical import JsonObject
from templates.document import Code, ModuleCode, Template
from templates.inheritance import merge_config, parents_first, resolve
from templates.names import TemplateName, TemplateRef, Version
from templates.problems import InvalidDocumentError
from templates.reasons import AgentFactoryError, Reason
from templates.resolved import BlobPin, ImagePin, PinnedCode, PinnedModule, PinnedSource, ResolvedTemplate
from templates.schemas import SchemaViolationError, check
from templates.source_archive import check_source
from templates.strict_json import loads

if TYPE_CHECKING:
    from client.local_http import Outside
    from client.local_llm import Models
    from sandbox.compile_cache import CompileCache
    from sandbox.outcome import Outcome
    from sandbox.request import HostCalls, InvocationRequest

IMAGES_DIRECTORY: Final = Path(__file__).parent.parent / "build" / "images"
LOCAL_AUTHOR: Final = "local"
_INTERFACE_VERSION: Final = "0.1.0"
_TEXT_DEPTH_MAX: Final = 64
_KEY_BYTES: Final = 32


class LocalRunError(AgentFactoryError):
    """The template cannot be run here: it is abstract, its image is not built, or its parent is not found."""

    reason = Reason.LOCAL_RUN_IMPOSSIBLE


class ConfigMismatchError(AgentFactoryError):
    """The configuration does not fit the template's ``config_schema``; a node would refuse it too."""

    reason = Reason.CONFIG_MISMATCH


class InputMismatchError(AgentFactoryError):
    """The input does not fit the template's ``input_schema`` or ``input_bytes``; a node would refuse it too."""

    reason = Reason.INPUT


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalRun:
    """What happened; times in milliseconds."""

    template: str
    output: str | None
    failure: str | None
    logs: Sequence[Mapping[str, Any]]
    usage: Mapping[str, Any]
    logs_cut: bool = False

    def to_json(self) -> dict[str, Any]:
        return {
            "template": self.template,
            "signed": False,
            "output": self.output,
            "failure": self.failure,
            "logs": list(self.logs),
            "logs_cut": self.logs_cut,
            "usage": dict(self.usage),
        }


def run_template(
    path: Path,
    *,
    text: str,
    config: JsonObject,
    granted: frozenset[str],
    parents: Sequence[Path],
    image: Path | None,
    tell: Callable[[str], None],
    mounts: Sequence[LocalMount] = (),
    outside: "Outside | None" = None,
    models: "Models | None" = None,
    around: "Callable[[HostCalls], HostCalls] | None" = None,
) -> LocalRun:
    """Run the template document at ``path`` once on ``text``.

    Args:
        path: the document; its code lies beside it.
        text: the input.
        config: over the template's ``default_config``.
        granted: grants that are carried out (``kv``, ``files``, ``http``, ``llm``); the template asks for each.
        mounts: directories for the mounts of its ``files`` grants; the others are there and refused.
        parents: documents of its parents, nearest first; by default they are looked for beside it.
        image: module of the image of a source; by default the one that `make images` built.
        tell: called with a line where something takes its time.
        outside: what ``http`` may reach, by default all bindings of the template that are globally routable.
        models: the endpoints that ``llm`` may ask, by default none.
        around: makes what answers host calls of what would.

    Raises:
        InvalidTemplateError: the document, or a parent, is refused.
        ConfigMismatchError, InputMismatchError: a schema or limit of the template refuses what was given.
        ModuleRefusedError: its code is none that a node would compile.
        LocalGrantError: it does not ask for what is granted.
        LocalRunError, CodeFileError: it cannot be run here.
    """
    template = read_file(path)
    if template.code is None:
        raise LocalRunError(f"expected a template with code, got {template.ref}, which is abstract")
    source, wasm = _code_bytes(template.code, path, image)
    resolved = resolve(
        template, _ancestors(template, path, parents), author=LOCAL_AUTHOR, code=_pinned(template.code, source, wasm)
    )
    refuse_unasked(resolved, granted, mounts=mounts, outside=outside, models=models)
    effective = merge_config(resolved.default_config, config)
    if problem := _config_misfit(resolved, effective):
        raise ConfigMismatchError(problem)
    if (length := len(text.encode())) > resolved.limits.input_bytes:
        raise InputMismatchError(f"expected at most {resolved.limits.input_bytes} bytes of input, got {length}")
    if problem := _text_misfit(resolved.input_schema, text, "input"):
        raise InputMismatchError(problem)
    return asyncio.run(
        _run(
            resolved,
            mounts,
            source=source,
            wasm=wasm,
            text=text,
            config=effective,
            granted=granted,
            tell=tell,
            outside=outside,
            models=models,
            around=around,
        )
    )


def _config_misfit(resolved: ResolvedTemplate, config: JsonObject) -> str:
    try:
        check(resolved.config_schema or {}, config)
    except SchemaViolationError as error:
        return f"config: {error.message}"
    return ""


def _text_misfit(schema: JsonObject | None, text: str, what: str) -> str:
    """Return why ``text`` is not the JSON that ``schema`` waits for; empty when it is, or when nothing waits."""
    if schema is None:
        return ""
    data = text.encode()
    try:
        check(schema, loads(data, bytes_max=max(len(data), 1), depth_max=_TEXT_DEPTH_MAX))
    except (InvalidDocumentError, SchemaViolationError) as error:
        return f"{what}: {error.message}"
    return ""


def _code_bytes(code: Code, path: Path, image: Path | None) -> tuple[bytes | None, bytes]:
    file = path.parent / code_file(code)
    try:
        own = file.read_bytes()
    except OSError as error:
        raise CodeFileError(f"expected the code at {file}, got: {error.strerror}") from error
    if isinstance(code, ModuleCode):
        return None, own
    check_source(code.source, own)
    module = image or IMAGES_DIRECTORY / f"{code.image}.wasm"
    if not module.exists():
        raise LocalRunError(
            f"expected the image {code.image} at {module}; build it with `make images` or name it with --image"
        )
    return own, module.read_bytes()


def _pinned(code: Code, source: bytes | None, wasm: bytes) -> PinnedCode:
    module = BlobPin(sha256=hashlib.sha256(wasm).hexdigest(), length=len(wasm))
    if isinstance(code, ModuleCode):
        return PinnedModule(module=module, abi=code.abi)
    own = source or b""
    return PinnedSource(
        source=BlobPin(sha256=hashlib.sha256(own).hexdigest(), length=len(own)),
        file=code.source,
        image=ImagePin(
            template=TemplateRef("images", code.image, Version(0, 0, 0)), sha256=module.sha256, length=module.length
        ),
    )


def _ancestors(template: Template, path: Path, parents: Sequence[Path]) -> tuple[ResolvedTemplate, ...]:
    """Resolve the line of parents, from the files named, else from documents near ``path``."""
    line: list[Template] = []
    wanted = template.parent
    named = [read_file(one) for one in parents]
    while wanted is not None and wanted not in {one.ref.template_name for one in (template, *line)}:
        found = next((one for one in named if one.ref.template_name == wanted), None) or _nearby(wanted, path)
        if found is None:
            raise LocalRunError(f"expected the parent {wanted} of {template.ref}; name its file with --parent")
        line.append(found)
        wanted = found.parent
    parents_first((template, *line))  # refuses a circle, where the loop stopped
    resolved: tuple[ResolvedTemplate, ...] = ()
    for one in reversed(line):
        resolved = (resolve(one, resolved, author=LOCAL_AUTHOR, code=None), *resolved)
    return resolved


def _nearby(wanted: TemplateName, path: Path) -> Template | None:
    for directory in path.resolve().parents[:3]:
        for candidate in (directory / wanted.name, directory / wanted.domain / wanted.name):
            document = candidate / "template.json"
            if document.exists():
                return read_file(document)
    return None


def _cache_key(directory: Path) -> bytes:
    """Return the key of this user's compile cache; one that is missing or cut short is made anew."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = directory / "key"
    if not file.exists() or file.stat().st_size != _KEY_BYTES:
        scratch = directory / f"key.{secrets.token_hex(8)}"
        with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(secrets.token_bytes(_KEY_BYTES))
        scratch.replace(file)
    return file.read_bytes()


def local_cache() -> "CompileCache":
    """Return this user's cache of compiled code."""
    from sandbox.compile_cache import CompileCache

    directory = Path.home() / ".cache" / "agentfactory" / "compiled"
    return CompileCache(directory, key=_cache_key(directory.parent))


async def _run(
    resolved: ResolvedTemplate,
    mounts: Sequence[LocalMount],
    *,
    source: bytes | None,
    wasm: bytes,
    text: str,
    config: JsonObject,
    granted: frozenset[str],
    tell: Callable[[str], None],
    outside: "Outside | None",
    models: "Models | None",
    around: "Callable[[HostCalls], HostCalls] | None",
) -> LocalRun:
    from client.local_http import LocalHttp, Outside, amounts_of
    from client.local_llm import LocalLlm, Models
    from sandbox.compiler import CompilerError
    from sandbox.supervisor import Worker, WorkerSettings

    cache = local_cache()
    if cache.get(hashlib.sha256(wasm).hexdigest()) is None:
        tell(f"compiling {len(wasm) / 1e6:.1f} MB of wasm, once")
    try:
        compiled = await cache.compile(wasm)
    except CompilerError as error:
        raise ModuleRefusedError(f"{error.code}: {error.message}") from error
    kv_bytes_max = resolved.grants.kv.bytes_max if resolved.grants.kv else 0
    files = LocalFiles(resolved.grants.files, mounts)
    amounts = amounts_of(resolved)
    http = LocalHttp(resolved, outside or Outside(), amounts) if "http" in granted else None
    llm = LocalLlm(resolved, models or Models(), amounts) if "llm" in granted else None
    host: HostCalls = LocalHost(granted, kv_bytes_max=kv_bytes_max, files=files, http=http, llm=llm)
    worker = await Worker.start(WorkerSettings())
    try:
        await worker.load("local", compiled)
        outcome = await worker.invoke(
            _request(resolved, compiled.abi, source=source, text=text, config=config, allowed=granted),
            around(host) if around else host,
        )
    finally:
        await worker.stop()
        files.close()
        if http is not None:
            http.close()
        if llm is not None:
            await llm.close()
    sent_bytes, received_bytes, tokens, _ = amounts.used
    used = {
        "sent_bytes": sent_bytes,
        "received_bytes": received_bytes,
        "tokens": tokens,
        "file_read_bytes": files.usage.bytes_read,
        "file_written_bytes": files.usage.bytes_written,
    }
    return _result(resolved, outcome, used)


def _result(resolved: ResolvedTemplate, outcome: "Outcome", used: Mapping[str, int]) -> LocalRun:
    """``used``: what its grants used."""
    output = outcome.output.decode(errors="backslashreplace") if outcome.output is not None else None
    failure = f"{outcome.failure.kind}: {outcome.failure.message}" if outcome.failure else None
    if output is not None and (problem := _text_misfit(resolved.output_schema, output, "output")):
        output, failure = None, f"OUTPUT: {problem}"
    usage = outcome.usage
    return LocalRun(
        template=str(resolved.ref),
        output=output,
        failure=failure,
        logs=[{"level": line.level, "message": line.message, "at_ms": line.at_us / 1e3} for line in outcome.logs],
        usage={
            "fuel": usage.fuel,
            "wall_ms": usage.wall_us / 1e3,
            "guest_ms": usage.guest_us / 1e3,
            "host_calls": usage.host_calls,
            "wasi_calls": usage.wasi_calls,
            "input_bytes": usage.input_bytes,
            "output_bytes": usage.output_bytes,
            "log_bytes": usage.log_bytes,
            **used,
        },
        logs_cut=outcome.logs_cut,
    )


def _request(
    resolved: ResolvedTemplate,
    abi: Any,
    *,
    source: bytes | None,
    text: str,
    config: JsonObject,
    allowed: frozenset[str],
) -> "InvocationRequest":
    import json

    from sandbox.limits import SandboxLimits
    from sandbox.request import InvocationRequest

    return InvocationRequest(
        code_id="local",
        abi=abi,
        source=source,
        input=text.encode(),
        config=json.dumps(config, ensure_ascii=False).encode(),
        limits=SandboxLimits(**resolved.limits.to_json()),
        granted=frozenset(f"agentfactory:runtime/{name}@{_INTERFACE_VERSION}" for name in allowed),
        invocation_id="local",
    )
