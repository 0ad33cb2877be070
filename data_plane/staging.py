"""From accepted to ready to run: the code is here, is what was approved, is compiled, and starts.

For each template in turn: fetch what is missing (by digest), find out what the module declares, derive the
capabilities from that and compare them with the approved ones (rule A9), compile, dry-run. The dry run instantiates
and loads under the template's limits and processes nothing; a template that is active already in the same bytes is not
rehearsed again.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Final, Protocol

from data_plane.activation.generation import ActiveGeneration, ActiveTemplate, make_active
from data_plane.generation_files import BlobError, GenerationFiles
from data_plane.worker_pool import REHEARSAL, WorkerPool
from sandbox.compile_cache import CompileCache
from sandbox.compiler import CompilerError, CompilerSettings
from sandbox.inspection import inspect
from sandbox.request import CompiledCode, InvocationRequest
from service.telemetry import COMPILATIONS, SpanName, Telemetry
from templates.acceptance import AcceptedTemplate, check_capabilities
from templates.capabilities import ModuleReport, derive
from templates.reasons import AgentFactoryError, Reason
from templates.resolved import PinnedModule, PinnedSource
from templates.source_archive import check_source
from templates.trusted_set import Accepted

StagedTemplates = Mapping[str, ActiveTemplate]
"""By ``domain/name``."""

REHEARSALS_AT_ONCE: Final = 8


class StageError(Exception):
    """One template is at fault; ``cause`` says why."""

    def __init__(self, template: str, cause: AgentFactoryError) -> None:
        super().__init__(f"{template}: {cause}")
        self.template = template
        self.cause = cause


class CodeRefusedError(AgentFactoryError):
    """The compiler refused a module; the message begins with its code."""

    reason = Reason.CODE_REFUSED


class DryRunFailedError(AgentFactoryError):
    """A template cannot be instantiated and loaded under its own limits."""

    reason = Reason.DRY_RUN_FAILED


class BlobSource(Protocol):
    """Where missing blobs come from: the control plane, while it is connected."""

    async def fetch(self, wanted: Mapping[str, int], keep: Callable[[str, bytes], Awaitable[None]]) -> None:
        """Fetch every blob (sha256 → length) and hand each to ``keep``.

        Raises:
            BlobError: one could not be had.
        """
        ...


class NoBlobSource:
    """While there is no connection."""

    async def fetch(self, wanted: Mapping[str, int], keep: Callable[[str, bytes], Awaitable[None]]) -> None:  # noqa: ARG002
        raise BlobError(
            f"expected {len(wanted)} blobs that are not in the store, and no control plane is connected",
            metadata={"sha256": next(iter(wanted))},
        )


class NoHostCalls:
    """Nothing is granted to a dry run."""

    async def call(self, interface: str, function: str, argument: bytes) -> bytes:  # noqa: ARG002
        return b'{"error":{"kind":"denied","message":"this is a dry run"}}'


class CodeStore:
    """Compiled code by module digest, through the compile cache; modules come from the blobs."""

    def __init__(
        self,
        files: GenerationFiles,
        cache: CompileCache,
        telemetry: Telemetry,
        settings: CompilerSettings | None = None,
    ) -> None:
        self._files = files
        self._cache = cache
        self.compiler_settings = settings
        self._telemetry = telemetry
        self._seen: set[str] = set()

    async def ensure(self, module_sha256: str) -> None:
        """Make sure that there is code for this engine; raises what `compiled` raises.

        What was there once in this process is taken to be there: if it goes, `compiled` makes it again.
        """
        if module_sha256 not in self._seen:
            await self.compiled(module_sha256)

    async def compiled(self, module_sha256: str) -> CompiledCode:
        """Return the code for this engine; a damaged or missing entry is compiled anew.

        Raises:
            BlobError: there is neither an entry nor the module.
            CodeRefusedError: the compiler refused the module.
        """
        found = await asyncio.to_thread(self._cache.get, module_sha256)
        self._telemetry.count(COMPILATIONS, "miss" if found is None else "hit")
        self._seen.add(module_sha256)
        if found is not None:
            return found
        self._seen.discard(module_sha256)
        wasm = await asyncio.to_thread(self._files.blob, module_sha256)
        with self._telemetry.span(SpanName.MODULE_COMPILE):
            try:
                made = await self._cache.compile(wasm, settings=self.compiler_settings)
            except CompilerError as error:
                raise CodeRefusedError(f"{error.code}: {error.message}", metadata={"code": error.code}) from error
        self._seen.add(module_sha256)
        return made

    def keep_only(self, modules: frozenset[str]) -> None:
        self._seen &= modules
        self._cache.collect(modules)


class Staging:
    """`data_plane.updater.Stager`."""

    def __init__(self, *, files: GenerationFiles, code: CodeStore, pool: WorkerPool, telemetry: Telemetry) -> None:
        self._files = files
        self._code = code
        self._pool = pool
        self._telemetry = telemetry
        self._intact: set[str] = set()
        self.blob_source: BlobSource = NoBlobSource()
        self.active: Callable[[], ActiveGeneration | None] = lambda: None

    async def stage(self, accepted: Accepted, *, rehearse: bool) -> StagedTemplates:
        """Make every template of ``accepted`` ready.

        Args:
            accepted: verified generation.
            rehearse: whether to dry-run; not needed for a stored generation, which was rehearsed before it was stored.

        Raises:
            StageError: with the template and the reason.
            BlobError: a blob could not be fetched.
        """
        await self._fetch_missing(accepted)
        reports: dict[str, ModuleReport] = {}
        staged: dict[str, ActiveTemplate] = {}
        active = self.active()
        for name, template in accepted.templates.items():
            before = active.templates.get(str(name)) if active is not None else None
            if before is not None and before.sha256 == template.sha256:
                # The same bytes and code were cleared before; who approved them, and until when, may have changed.
                staged[str(name)] = replace(before, approvers=template.persons, approval_expires=template.expires)
                continue
            try:
                staged[str(name)] = await self._clear(template, reports)
            except BlobError:
                raise
            except AgentFactoryError as error:
                raise StageError(str(template.ref), error) from error
        for module in sorted({each.module_sha256 for each in staged.values()}):
            try:
                await self._code.ensure(module)
            except AgentFactoryError as error:
                users = [each.ref_text for each in staged.values() if each.module_sha256 == module]
                raise StageError(users[0], error) from error
        if rehearse:
            await self._rehearse_all(staged)
        return staged

    async def _fetch_missing(self, accepted: Accepted) -> None:
        """Fetch what is not there in the right length; digests are checked when a blob is kept and when it is read."""

        def missing() -> dict[str, int]:
            return {sha: length for sha, length in accepted.code.items() if not self._is_intact(sha, length)}

        wanted = await asyncio.to_thread(missing)
        if wanted:

            async def keep(sha256: str, data: bytes) -> None:
                await asyncio.to_thread(self._files.keep_blob, sha256, data)

            await self.blob_source.fetch(wanted, keep)

    def _is_intact(self, sha256: str, length: int) -> bool:
        """Whether a blob is there; its bytes are checked once in the life of this process, and whenever it is read."""
        if not self._files.has_blob(sha256, length):
            return False
        if sha256 not in self._intact:
            try:
                self._files.blob(sha256)
            except BlobError:
                return False
            self._intact.add(sha256)
        return True

    async def _clear(self, accepted: AcceptedTemplate, reports: dict[str, ModuleReport]) -> ActiveTemplate:
        """Step A9, for a template and its image; then everything that an invocation needs of it."""
        code = accepted.resolved.code
        source: bytes | None = None
        match code:
            case PinnedSource(source=own, image=image):
                source = await asyncio.to_thread(self._files.blob, own.sha256)
                await asyncio.to_thread(check_source, code.file, source)
                report = await self._report(image.sha256, reports)
            case PinnedModule(module=own):
                report = await self._report(own.sha256, reports)
            case _:
                raise CodeRefusedError("expected a template with code, got an abstract one")
        if accepted.image is not None:
            check_capabilities(accepted.image, derive(accepted.image.resolved, report))
        cleared = check_capabilities(accepted, derive(accepted.resolved, report))
        return make_active(cleared, source=source)

    async def _report(self, module_sha256: str, reports: dict[str, ModuleReport]) -> ModuleReport:
        """Return what a module declares: known from before (under a seal), or found out in a one-job process."""
        if module_sha256 in reports:
            return reports[module_sha256]
        stored = await asyncio.to_thread(self._files.facts, module_sha256)
        if stored is None:
            wasm = await asyncio.to_thread(self._files.blob, module_sha256)
            with self._telemetry.span(SpanName.MODULE_INSPECT):
                try:
                    found = (await inspect(wasm, settings=self._code.compiler_settings)).to_json()
                except CompilerError as error:
                    raise CodeRefusedError(f"{error.code}: {error.message}", metadata={"code": error.code}) from error
            stored = json.dumps(found).encode()
            await asyncio.to_thread(self._files.keep_facts, module_sha256, stored)
        report = reports[module_sha256] = ModuleReport.from_json(json.loads(stored))
        return report

    async def _rehearse_all(self, staged: StagedTemplates) -> None:
        active = self.active()
        known = frozenset[str]() if active is None else {each.sha256 for each in active.templates.values()}
        turns = asyncio.Semaphore(REHEARSALS_AT_ONCE)

        async def rehearse(template: ActiveTemplate) -> None:
            async with turns:
                await self._rehearse(template)

        waiting = [rehearse(each) for each in staged.values() if each.sha256 not in known]
        for outcome in await asyncio.gather(*waiting, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome

    async def _rehearse(self, template: ActiveTemplate) -> None:
        request = InvocationRequest(
            code_id=template.module_sha256,
            abi=template.abi,
            source=template.source,
            config=template.default_config,
            limits=template.limits,
            granted=template.granted,
            invocation_id="dry-run",
            process=False,
        )
        try:
            pooled = await self._pool.obtain(REHEARSAL, template.module_sha256)
            outcome = await self._pool.invoke(pooled, template.sha256, request, NoHostCalls())
        except AgentFactoryError as error:
            raise StageError(template.ref_text, error) from error
        if outcome.failure is not None:
            message = f"{outcome.failure.kind}: {outcome.failure.message}"
            raise StageError(template.ref_text, DryRunFailedError(message))
