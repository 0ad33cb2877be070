"""Rollouts, the fleet and the keys over gRPC: what operators ask (`RolloutService`, `FleetService`, `KeyService`)."""

# ruff: noqa: N802, ARG002 - names and signatures are those of the services

import asyncio
from datetime import datetime
from typing import Any

import grpc.aio
from agentfactory.admin.v1 import admin_pb2 as pb
from agentfactory.admin.v1 import admin_pb2_grpc as rpc
from google.protobuf.timestamp_pb2 import Timestamp

from control_plane.authorisation import ADMIN
from control_plane.fan_out import FanOut
from control_plane.fleet import NodeView
from control_plane.grpc_admin import InvalidRequestError, TemplateUnknownError
from control_plane.grpc_mutations import Mutations
from control_plane.paging import fitting, page_size, position_of, token_of
from control_plane.publisher import Publisher
from control_plane.roles import expiry_warnings, roles_of
from control_plane.sqlite_store import GenerationRecord, SqliteStore
from control_plane.trust_directory import trust_etag
from service.access.authority import Authority
from service.identity import Identity
from service.peer import peer_identity, peer_of
from templates.names import TemplateRef
from templates.repository import OfflineTrust
from templates.revocations import Revocations

ROOTS_MAX = 64
ID_CHARACTERS_MAX = 512
_DIGEST_CHARACTERS = 64
_SERIAL_DIGITS_MAX = 40

Context = grpc.aio.ServicerContext[Any, Any]


class RolloutService(rpc.RolloutServiceServicer):
    def __init__(
        self, *, store: SqliteStore, publisher: Publisher, fan_out: FanOut, mutations: Mutations, authority: Authority
    ) -> None:
        self._authority = authority
        self._store = store
        self._publisher = publisher
        self._fan_out = fan_out
        self._mutations = mutations

    async def Rollback(self, request: pb.RollbackRequest, context: Context) -> pb.Generation:
        self._authority.require_everywhere(peer_of(context), f"{ADMIN}RolloutService/Rollback")
        author = peer_identity(context).name
        return await self._mutations.answer(
            request,
            context,
            pb.Generation,
            respond=self._generation,
            work=lambda ask: self._publisher.rollback(request.generation, author=author, why=request.reason, ask=ask),
        )

    async def ListGenerations(self, request: pb.ListGenerationsRequest, context: Context) -> pb.ListGenerationsResponse:
        size = page_size(request.page_size)
        records = await asyncio.to_thread(
            self._store.generations, before=position_of(request.page_token), limit=size + 1
        )
        page = fitting(self._generation(each) for each in records[:size])
        more = len(records) > len(page)
        return pb.ListGenerationsResponse(
            generations=page, next_page_token=token_of(page[-1].generation) if more else ""
        )

    async def Revoke(self, request: pb.RevokeRequest, context: Context) -> pb.Generation:
        kind = request.WhichOneof("target")
        value = str(getattr(request, kind)) if kind else ""
        if not value or len(value) > ID_CHARACTERS_MAX:
            raise InvalidRequestError("expected a template, module, reviewer, node or identity to revoke")
        domain = None
        match kind:
            case "template":
                domain, revoked = await self._template(value)
            case "module":
                if len(value) != _DIGEST_CHARACTERS or set(value) - set("0123456789abcdef"):
                    raise InvalidRequestError(f"expected the sha256 of a module in 64 digits, got {value!r}")
                revoked = Revocations(modules=frozenset({value}))
            case "reviewer":
                if value not in self._publisher.present.charter.persons:
                    raise InvalidRequestError(f"expected a person of the charter, got {value!r}")
                revoked = Revocations(reviewers=frozenset({value}))
            case "identity":
                revoked = Revocations(identities=frozenset({_identity(value, peer_identity(context).trust_domain)}))
            case _:
                revoked = Revocations(nodes=frozenset({value}))
        author = peer_identity(context).name
        method = f"{ADMIN}RolloutService/Revoke"
        if domain is None:
            self._authority.require_everywhere(peer_of(context), method)
        else:
            self._authority.require(peer_of(context), method, domain=domain)
        return await self._mutations.answer(
            request,
            context,
            pb.Generation,
            respond=self._generation,
            work=lambda ask: self._publisher.revoke(
                revoked, what=f"{kind} {value}", author=author, why=request.reason, ask=ask
            ),
        )

    async def _template(self, name: str) -> tuple[str, Revocations]:
        ref = TemplateRef.parse(name)
        change = await asyncio.to_thread(self._store.change_of_version, ref)
        if change is None:
            raise TemplateUnknownError(name, self._publisher.present.material.library)
        return ref.domain, Revocations(templates=frozenset({change.sha256}))

    def _generation(self, record: GenerationRecord) -> pb.Generation:
        active, connected = self._fan_out.reach(record.number)
        return pb.Generation(
            generation=record.number,
            create_time=_timestamp(record.created_at),
            cause=record.cause,
            author=record.author,
            templates=[str(each.template) for each in record.plan.entries],
            nodes_active=active,
            nodes_connected=connected,
            etag=f"g{record.number}",
        )


class FleetService(rpc.FleetServiceServicer):
    def __init__(self, *, publisher: Publisher, fan_out: FanOut) -> None:
        self._publisher = publisher
        self._fan_out = fan_out

    async def ListNodes(self, request: pb.ListNodesRequest, context: Context) -> pb.ListNodesResponse:
        return pb.ListNodesResponse(
            nodes=[_node(view) for view in self._fan_out.nodes()], generation=self._publisher.present.number
        )


class KeyService(rpc.KeyServiceServicer):
    def __init__(self, *, publisher: Publisher, mutations: Mutations) -> None:
        self._publisher = publisher
        self._mutations = mutations

    async def ListRoles(self, request: pb.ListRolesRequest, context: Context) -> pb.ListRolesResponse:
        roles = roles_of(self._publisher.present.metadata)
        return pb.ListRolesResponse(
            roles=[
                pb.Role(
                    name=role.name,
                    version=role.version,
                    expire_time=_timestamp(role.expires),
                    key_ids=role.key_ids,
                    threshold=role.threshold,
                    online=role.is_online,
                )
                for role in roles
            ],
            warnings=warnings_of(self._publisher),
        )

    async def UpdateTrust(self, request: pb.UpdateTrustRequest, context: Context) -> pb.UpdateTrustResponse:
        if len(request.roots) > ROOTS_MAX:
            raise InvalidRequestError(f"expected at most {ROOTS_MAX} roots, got {len(request.roots)}")
        if not (request.roots or request.targets or request.charter):
            raise InvalidRequestError("expected newer roots, targets or a charter, got nothing")
        known = self._publisher.present.material.trust
        newer = tuple(root for root in request.roots if root not in known.roots)
        trust = OfflineTrust(
            roots=known.roots + newer,
            targets=request.targets or known.targets,
            charter=request.charter or known.charter,
        )
        return await self._mutations.answer(
            request,
            context,
            pb.UpdateTrustResponse,
            respond=lambda record: pb.UpdateTrustResponse(generation=record.number),
            work=lambda ask: self._publisher.update_trust(trust, author=ask.person, ask=ask),
        )

    async def GetTrust(self, request: pb.GetTrustRequest, context: Context) -> pb.GetTrustResponse:
        trust = self._publisher.present.material.trust
        return pb.GetTrustResponse(
            roots=trust.roots,
            targets=trust.targets,
            charter=trust.charter,
            bundle_zstd=self._publisher.update.frame,
            etag=trust_etag(trust),
        )


def _identity(text: str, trust_domain: str) -> str:
    """Return what revocations hold: the URI of an identity, or ``serial:`` and digits as certificates have them."""
    kind, _, number = text.partition(":")
    if kind != "serial":
        identity = Identity.parse(text)
        if identity.trust_domain != trust_domain:
            raise InvalidRequestError(f"expected an identity of {trust_domain}: nobody else is let in, got {identity}")
        return identity.uri
    digits = number.replace(":", "").lower().lstrip("0")
    if not 0 < len(digits) <= _SERIAL_DIGITS_MAX or set(digits) - set("0123456789abcdef"):
        raise InvalidRequestError(f"expected serial: and hexadecimal digits, got {text!r}")
    return f"serial:{digits}"


def warnings_of(publisher: Publisher) -> tuple[str, ...]:
    """Return what is about to run out in this installation."""
    present = publisher.present
    return expiry_warnings(
        roles_of(present.metadata),
        {str(each.ref): each.expires for each in present.accepted.templates.values()},
        lease_s=present.charter.lease_s_max,
        now=publisher.now(),
    )


def _node(view: NodeView) -> pb.Node:
    refusal = view.refusal
    return pb.Node(
        id=view.id,
        connected=view.connected,
        stage=str(view.stage) if view.stage else "",
        generation=view.generation,
        seen_time=_timestamp(view.seen_at),
        refusal_reason=refusal.reason if refusal else "",
        refusal_message=refusal.message if refusal else "",
        refused_generation=refusal.generation if refusal else 0,
        version=view.version,
        isolation=view.isolation,
        in_flight=view.in_flight,
        agents=view.agents,
    )


def _timestamp(at: datetime) -> Timestamp:
    return Timestamp(seconds=int(at.timestamp()))
