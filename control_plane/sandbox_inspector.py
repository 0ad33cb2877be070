"""Inspects submitted modules in the jailed one-job child of `sandbox`; the only module here that imports it."""

from sandbox.compiler import CompilerError
from sandbox.inspection import inspect
from templates.capabilities import ModuleReport
from templates.reasons import AgentFactoryError, Reason


class InspectionError(AgentFactoryError):
    """The module was not inspected: it is none, is too big, or cost more than one job may use."""

    def __init__(self, message: str, *, reason: Reason) -> None:
        super().__init__(message)
        self.reason = reason


async def inspect_module(wasm: bytes) -> ModuleReport:
    """Return what ``wasm`` declares. Cancelling kills the child.

    Raises:
        InspectionError: NOT_WASM, COMPILED_CODE, MODULE_SIZE, MODULE_INVALID, COMPILER_LIMIT or COMPILER_CRASH.
    """
    try:
        facts = await inspect(wasm)
    except CompilerError as error:
        raise InspectionError(error.message, reason=Reason(error.code)) from error
    return ModuleReport.from_json(facts.to_json())
