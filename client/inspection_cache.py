"""Module reports by digest, so that one machine inspects an image once: derived here, hence kept here."""

import asyncio
import hashlib
import json
import re
from pathlib import Path
from typing import Final

from templates.capabilities import ModuleReport
from templates.reasons import AgentFactoryError, Reason

_SUFFIX: Final = ".report.json"
_NAME: Final = re.compile(r"([0-9a-f]{64})\.report\.json")


class ModuleRefusedError(AgentFactoryError):
    """The module is not one that a node would compile."""

    reason = Reason.MODULE_REFUSED


class InspectionCache:
    """A private directory of reports that this machine derived itself, by the digest of the module."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def digests(self) -> frozenset[str]:
        """Return the digests of the modules that need not be fetched again."""
        if not self._directory.exists():
            return frozenset()
        found = (_NAME.fullmatch(path.name) for path in self._directory.iterdir())
        return frozenset(match[1] for match in found if match)

    def kept(self, digest: str) -> ModuleReport | None:
        """Return the report on the module ``digest`` from earlier."""
        path = self._directory / f"{digest}{_SUFFIX}"
        return ModuleReport.from_json(json.loads(path.read_text())) if path.exists() else None

    def inspect(self, wasm: bytes) -> ModuleReport:
        """Report on ``wasm``, and keep the report.

        Raises:
            ModuleRefusedError: not wasm, compiled code, too large, or refused by the engine.
        """
        from sandbox.compiler import CompilerError
        from sandbox.inspection import inspect

        digest = hashlib.sha256(wasm).hexdigest()
        if found := self.kept(digest):
            return found
        try:
            facts = asyncio.run(inspect(wasm))
        except CompilerError as error:
            raise ModuleRefusedError(f"{error.code}: {error.message}") from error
        report = ModuleReport.from_json(json.loads(json.dumps(facts.to_json())))
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self._directory / f"{digest}{_SUFFIX}"
        scratch = path.with_suffix(".tmp")
        scratch.write_text(json.dumps(report.to_json()))
        scratch.replace(path)
        return report
