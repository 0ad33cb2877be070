"""The broker: carries out the host calls of one invocation, within its grants. Deny by default.

A refusal is an ordinary answer to the guest. Which interfaces exist for a template was decided by its approved grants;
that is checked here again for each call, because a worker is not believed.
"""

from collections.abc import Callable
from functools import partial
from typing import Final

from data_plane.agents.agent import AgentScope
from data_plane.agents.ports import KvStore
from data_plane.agents.refusals import UnknownTemplateError
from data_plane.broker.agents_grant import child_limits, read_child_request, require_callee, require_permitted
from data_plane.broker.amounts import Amount
from data_plane.broker.answers import ErrorKind, HostRefusal, Members, answer_error, answer_ok
from data_plane.broker.file_grant import refusal_kind
from data_plane.broker.kv_grant import KvDelete, KvGet, KvList, KvPut, read_kv_request
from data_plane.broker.llm_budget import LlmAllowances
from data_plane.file_exports import FileExports, InvocationFiles
from data_plane.http_calls import HttpCalls
from data_plane.invoker import Call, InvocationFailedError, Invoker, Running
from data_plane.llm_calls import LlmCaller, LlmCalls, LlmInvocation
from sandbox.file_protocol import INTERFACE as FILES
from sandbox.file_protocol import Errno, errno_of, pack_reply
from service.logs import get_logger
from service.telemetry import HOST_CALLS, Field, SpanName, Telemetry
from templates.canonical import JsonValue
from templates.reasons import AgentFactoryError

ANSWER_BYTES_MAX: Final = 4_000_000
"""A little below what a worker accepts."""

log = get_logger("broker")


class Broker:
    """`sandbox.supervisor.HostCalls` of one invocation."""

    __slots__ = (
        "_depth_max",
        "_files",
        "_held_files",
        "_http",
        "_invoker",
        "_kv",
        "_llm",
        "_llm_calls",
        "_monotonic",
        "_running",
        "_scope",
        "_telemetry",
    )

    def __init__(
        self,
        running: Running,
        scope: AgentScope,
        *,
        kv: KvStore,
        llm: LlmCalls,
        http: HttpCalls,
        files: FileExports,
        invoker: Invoker,
        depth_max: int,
        telemetry: Telemetry,
        monotonic: Callable[[], float],
    ) -> None:
        self._running = running
        self._scope = scope
        self._kv = kv
        self._llm_calls = llm
        self._llm: LlmInvocation | None = None
        self._http = http
        self._files = files
        self._held_files: InvocationFiles | None = None
        self._invoker = invoker
        self._depth_max = depth_max
        self._telemetry = telemetry
        self._monotonic = monotonic

    async def call(self, interface: str, function: str, argument: bytes) -> bytes:
        """Return the answer as JSON, for files in their own form; never raises but for cancellation."""
        started = self._monotonic()
        result = "ok"
        try:
            with self._telemetry.span(SpanName.HOST_CALL) as span:
                span.set(Field.HOST_CALL, f"{interface[:40]}.{function[:40]}")
                if interface == FILES:
                    reply = await self._files_call(function, argument)
                    result = str(refusal_kind(errno_of(reply)) or result)
                    return reply
                return _bounded(answer_ok(await self._carry_out(interface, function, argument)))
        except HostRefusal as refusal:
            result = str(refusal.kind)
            return answer_error(refusal)
        except AgentFactoryError as error:
            result = str(ErrorKind.FAILED)
            log.warning("host_call_failed", **{Field.INVOCATION: self._running.invocation_id, Field.ERROR: str(error)})
            return answer_error(HostRefusal(ErrorKind.FAILED, str(error.reason)))
        finally:
            self._running.host_call_s += self._monotonic() - started
            known = interface if interface in {"kv", "llm", "agents", "http", FILES} else "unknown"
            self._telemetry.count(HOST_CALLS, known, result)

    async def _carry_out(self, interface: str, function: str, argument: bytes) -> JsonValue:
        match interface:
            case "kv":
                return await self._kv_call(function, Members.parse(argument))
            case "llm":
                return await self._llm_call(function, Members.parse(argument))
            case "agents":
                return await self._agents_call(function, Members.parse(argument))
            case "http":
                return await self._http_call(function, Members.parse(argument))
            case _:
                raise HostRefusal(ErrorKind.DENIED, f"expected kv, llm, agents or http, got {interface[:40]!r}")

    async def _kv_call(self, function: str, members: Members) -> JsonValue:
        grant = self._running.call.template.resolved.grants.kv
        if grant is None:
            raise HostRefusal(ErrorKind.DENIED, "kv was not granted")
        scope, namespace = self._scope, grant.namespace
        match read_kv_request(function, members):
            case KvGet(key=key):
                entry = await self._kv.kv_get(scope, namespace, key)
                return None if entry is None else {"value": entry.value, "version": entry.version}
            case KvPut() as request:
                return {"version": await self._kv.kv_put(scope, grant, request)}
            case KvDelete() as request:
                await self._kv.kv_delete(scope, namespace, request)
                return None
            case KvList() as request:
                keys = list(await self._kv.kv_list(scope, namespace, request))
                cursor = keys[-1] if len(keys) == request.count_max else None
                return {"keys": [*keys], "cursor": cursor}

    async def _llm_call(self, function: str, members: Members) -> JsonValue:
        running = self._running
        if not running.call.template.resolved.grants.llm:
            raise HostRefusal(ErrorKind.DENIED, "llm was not granted")
        if self._llm is None:
            caller = LlmCaller(
                scope=self._scope,
                grants=running.call.template.resolved.grants.llm,
                allowances=self._allowances(),
                amounts=running.amounts,
                deadline=running.budget.deadline,
            )
            self._llm = LlmInvocation(self._llm_calls, caller)
            running.endings.append(self._llm.close)
        return await self._llm.call(function, members)

    def _allowances(self) -> LlmAllowances:
        """Return what this invocation may use of language models; a child must find it, so it is made for that too."""
        amounts = self._running.amounts
        if amounts.llm is None:
            above = None if amounts.above is None else amounts.above.llm
            amounts.llm = LlmAllowances(self._running.call.template.resolved.grants.llm, above)
        return amounts.llm

    async def _http_call(self, function: str, members: Members) -> JsonValue:
        running, active = self._running, self._invoker.active
        return await self._http.call(
            function,
            members,
            tenant=running.call.tenant,
            template=running.call.template.name,
            grants=running.call.template.resolved.grants,
            bindings={} if active is None else active.accepted.charter.secret_bindings,
            amounts=running.amounts,
            deadline=running.budget.deadline,
        )

    async def _files_call(self, function: str, argument: bytes) -> bytes:
        """Carry out what virtual WASI asks; a session is made at the first request and ends with the invocation."""
        if self._held_files is None:
            grants = self._running.call.template.resolved.grants.files
            if not grants:
                return pack_reply(Errno.ACCES)
            self._held_files = await self._files.session(self._scope, grants)
            self._running.endings.append(partial(self._end_files, self._held_files))
        return await self._held_files.call(function, argument)

    def _end_files(self, files: InvocationFiles) -> None:
        """The invocation has ended: say in its amounts what it read and wrote."""
        files.close()
        if files.usage.bytes_read or files.usage.bytes_written:
            used = self._running.amounts.used_by_grants()
            used.file_read_bytes, used.file_written_bytes = files.usage.bytes_read, files.usage.bytes_written

    async def _agents_call(self, function: str, members: Members) -> JsonValue:
        call, budget = self._running.call, self._running.budget
        request = read_child_request(function, members)
        require_permitted(call.template.name, call.template.resolved.grants, request)
        try:
            active, callee = self._invoker.template(str(request.template))
        except UnknownTemplateError:
            active, callee = None, None
        resolved = require_callee(call.template.name, request, None if callee is None else callee.resolved)
        if active is None or callee is None:
            raise HostRefusal(ErrorKind.NOT_FOUND, f"expected an active template, got {resolved.ref}")
        now = self._monotonic()
        own = self._invoker.limits.of(callee.sha256, callee.resolved.limits, tenant=call.tenant)
        limits = child_limits(own, budget, depth_max=self._depth_max, now=now)
        self._running.amounts.take(Amount.CHILD_INVOCATIONS, 1)
        child = Call(
            tenant=call.tenant,
            caller=call.caller,
            template=callee,
            generation=active.number,
            input=request.input,
            config=callee.default_config,
            config_sha256=callee.default_config_sha256,
            received=now,
            limits=limits,
            parent_invocation_id=self._running.invocation_id,
            depth=call.depth + 1,
            above=self._running.amounts,
        )
        self._allowances()
        try:
            answer = await self._invoker.run_child(child, budget)
        except InvocationFailedError as error:
            raise HostRefusal(ErrorKind.FAILED, f"{callee.ref_text}: {error.reason}: {error.message}") from error
        return {"output": answer.output}


def _bounded(answer: bytes) -> bytes:
    if len(answer) > ANSWER_BYTES_MAX:
        raise HostRefusal(ErrorKind.FAILED, f"expected an answer of at most {ANSWER_BYTES_MAX} bytes")
    return answer
