"""Admission policies over gRPC: what is in force, and the broken glass (`PolicyService`)."""

# ruff: noqa: N802, ARG002 - names and signatures are those of the service

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import grpc.aio
from agentfactory.admin.v1 import policy_pb2 as pb
from agentfactory.admin.v1 import policy_pb2_grpc as rpc
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from control_plane.authorisation import ADMIN
from control_plane.break_glass import BreakGlass, GlassState
from control_plane.glasses import Glasses
from control_plane.grpc_mutations import Mutations
from control_plane.mutation import Ask
from control_plane.paging import fitting, page_size, position_of, token_of
from control_plane.policy_gate import candidate_of, standing_of
from control_plane.publisher import Publisher
from service.access.authority import Authority
from service.peer import peer_of
from templates.names import TemplateRef

Context = grpc.aio.ServicerContext[Any, Any]

_STATES = {state: pb.BreakGlassState.Value(f"BREAK_GLASS_STATE_{state}") for state in GlassState}


class PolicyService(rpc.PolicyServiceServicer):
    def __init__(self, *, publisher: Publisher, glasses: Glasses, mutations: Mutations, authority: Authority) -> None:
        self._authority = authority
        self._publisher = publisher
        self._glasses = glasses
        self._mutations = mutations

    async def GetPolicy(self, request: pb.GetPolicyRequest, context: Context) -> pb.Policy:
        present = self._publisher.present
        candidate = candidate_of(present.material.library)
        if candidate is None:
            return pb.Policy()
        standing = await asyncio.to_thread(standing_of, present, self._publisher.now())
        return pb.Policy(
            template=str(candidate.ref),
            sha256=bytes.fromhex(candidate.sha256),
            resolved=candidate.resolved,
            approval=candidate.approval,
            problem=standing.problem,
        )

    async def OpenBreakGlass(self, request: pb.OpenBreakGlassRequest, context: Context) -> pb.BreakGlass:
        ref, present = TemplateRef.parse(request.template), self._publisher.present
        return await self._answer(
            request,
            context,
            lambda ask: self._glasses.open(ref, why=request.reason, minutes=request.minutes, present=present, ask=ask),
        )

    async def ConfirmBreakGlass(self, request: pb.ConfirmBreakGlassRequest, context: Context) -> pb.BreakGlass:
        present = self._publisher.present
        return await self._answer(
            request, context, lambda ask: self._glasses.confirm(request.name, present=present, ask=ask)
        )

    async def CloseBreakGlass(self, request: pb.CloseBreakGlassRequest, context: Context) -> pb.BreakGlass:
        present = self._publisher.present
        return await self._answer(
            request, context, lambda ask: self._glasses.close(request.name, present=present, ask=ask)
        )

    async def ListBreakGlass(self, request: pb.ListBreakGlassRequest, context: Context) -> pb.ListBreakGlassResponse:
        size = page_size(request.page_size)
        found = await self._glasses.page(before=position_of(request.page_token), limit=size + 1)
        page = fitting(self._message(each) for each in found[:size])
        more = len(found) > len(page)
        peer, method = peer_of(context), f"{ADMIN}PolicyService/ListBreakGlass"
        seen = [each for each in page if self._authority.permits(peer, method, domain=each.template.partition("/")[0])]
        return pb.ListBreakGlassResponse(
            break_glasses=seen, next_page_token=token_of(found[len(page) - 1].number) if more else ""
        )

    async def _answer(
        self, request: Message, context: Context, work: Callable[[Ask[BreakGlass]], Awaitable[BreakGlass]]
    ) -> pb.BreakGlass:
        return await self._mutations.answer(request, context, pb.BreakGlass, respond=self._message, work=work)

    def _message(self, glass: BreakGlass) -> pb.BreakGlass:
        return pb.BreakGlass(
            name=glass.name if glass.number else "",
            state=_STATES[glass.state(self._publisher.now())],
            template=str(glass.ref),
            reason=glass.why,
            minutes=glass.minutes,
            opened_by=glass.opened_by,
            open_time=_timestamp(glass.opened_at),
            confirmed_by=glass.confirmed_by,
            confirm_time=_timestamp(glass.confirmed_at),
            closed_by=glass.closed_by,
            close_time=_timestamp(glass.closed_at),
            expire_time=_timestamp(glass.expires),
            uses=[
                pb.BreakGlassUse(time=_timestamp(use.at), action=use.action, person=use.person, policies=use.policies)
                for use in glass.uses
            ],
        )


def _timestamp(at: datetime | None) -> Timestamp | None:
    return None if at is None else Timestamp(seconds=int(at.timestamp()))
