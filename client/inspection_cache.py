"""Module reports by digest, so that one machine inspects an image once: derived here, hence kept here."""

import asyncio
import hashlib
import json
from pathlib import Path

from templates.capabilities import ModuleReport
from templates.reasons import AgentFactoryError, Reason


class ModuleRefusedError(AgentFactoryError):
    """The module is not one that a node would compile."""

    reason = Reason.MODULE_REFUSED


def inspect_module(wasm: bytes, *, cache: Path | None) -> ModuleReport:
    """Report on ``wasm``, from ``cache`` (a private directory) when this machine inspected the same bytes before.

    Raises:
        ModuleRefusedError: not wasm, compiled code, too large, or refused by the engine.
    """
    from sandbox.compiler import CompilerError
    from sandbox.inspection import inspect

    digest = hashlib.sha256(wasm).hexdigest()
    kept = cache / f"{digest}.report.json" if cache else None
    if kept and kept.exists():
        return ModuleReport.from_json(json.loads(kept.read_text()))
    try:
        facts = asyncio.run(inspect(wasm))
    except CompilerError as error:
        raise ModuleRefusedError(f"{error.code}: {error.message}") from error
    report = ModuleReport.from_json(json.loads(json.dumps(facts.to_json())))
    if kept and cache:
        cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        scratch = kept.with_suffix(".tmp")
        scratch.write_text(json.dumps(report.to_json()))
        scratch.replace(kept)
    return report
