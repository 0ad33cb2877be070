"""What is active: everything that an invocation needs, computed once when a generation is staged.

A generation is immutable and swapped whole; an invocation holds on to the template that it started with.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sandbox.limits import SandboxLimits
from sandbox.request import Abi
from templates.acceptance import ClearedTemplate
from templates.canonical import JsonObject, canonical_bytes
from templates.capabilities import HOST_VERSION
from templates.document import LeaseExpiry
from templates.limits import Limits
from templates.names import TemplateName
from templates.resolved import PinnedModule, PinnedSource, ResolvedTemplate
from templates.schemas import CompiledSchema, compile_schema
from templates.trusted_set import Accepted, Freshness, freshness, in_force


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveTemplate:
    """One template, ready to run. Texts and digests are kept as the receipt shows them."""

    resolved: ResolvedTemplate
    name: TemplateName
    name_text: str
    version_text: str
    ref_text: str
    sha256: str
    module_sha256: str
    abi: Abi
    source: bytes | None
    code_sha256: str
    image_sha256: str
    granted: frozenset[str]
    limits: SandboxLimits
    config_schema: CompiledSchema | None
    input_schema: CompiledSchema | None
    output_schema: CompiledSchema | None
    default_config: bytes
    default_config_sha256: str
    approvers: frozenset[str]
    approval_expires: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveGeneration:
    """``templates`` by their ``domain/name`` text."""

    accepted: Accepted
    templates: Mapping[str, ActiveTemplate]
    activated_at: datetime
    took_s: float

    @property
    def number(self) -> int:
        return self.accepted.generation

    @property
    def modules(self) -> frozenset[str]:
        """Digests of every module and image that its templates run on."""
        return frozenset(template.module_sha256 for template in self.templates.values())


@dataclass(frozen=True, slots=True)
class LeaseClock:
    """When a generation's freshness changes, so that an invocation compares two numbers; seconds since the epoch."""

    expires: float
    stale: float

    @classmethod
    def of(cls, accepted: Accepted) -> "LeaseClock":
        stale = accepted.lease.signed_at + timedelta(seconds=accepted.charter.staleness_s_max)
        return cls(min(accepted.expires.values()).timestamp(), stale.timestamp())

    def in_force(self, accepted: Accepted, policy: LeaseExpiry, *, now: datetime) -> LeaseExpiry:
        """Return what applies to a template of ``policy`` now."""
        if now.timestamp() < min(self.expires, self.stale):
            return LeaseExpiry.CONTINUE
        return in_force(policy, freshness(accepted, now=now))

    def is_expired(self, accepted: Accepted, *, now: datetime) -> bool:
        return freshness(accepted, now=now) is not Freshness.FRESH


def make_active(cleared: ClearedTemplate, *, source: bytes | None) -> ActiveTemplate:
    """Compute everything that does not depend on a request; ``source`` is the author's, where an image runs it."""
    accepted = cleared.accepted
    resolved = accepted.resolved
    match resolved.code:
        case PinnedSource(source=own, image=image):
            module, code_sha256, image_sha256, abi = image.sha256, own.sha256, image.sha256, "image"
        case PinnedModule(module=own, abi=module_abi):
            module, code_sha256, image_sha256, abi = own.sha256, own.sha256, "", str(module_abi)
        case _:
            raise ValueError(f"expected a template with code, got {resolved.ref}")
    config = canonical_bytes(resolved.default_config)
    return ActiveTemplate(
        resolved=resolved,
        name=resolved.ref.template_name,
        name_text=str(resolved.ref.template_name),
        version_text=str(resolved.ref.version),
        ref_text=str(resolved.ref),
        sha256=accepted.sha256,
        module_sha256=module,
        abi=_ABIS[abi],
        source=source,
        code_sha256=code_sha256,
        image_sha256=image_sha256,
        granted=frozenset(f"agentfactory:runtime/{each}@{HOST_VERSION}" for each in resolved.grants.interfaces()),
        limits=sandbox_limits(resolved.limits),
        config_schema=_compiled(resolved.config_schema),
        input_schema=_compiled(resolved.input_schema),
        output_schema=_compiled(resolved.output_schema),
        default_config=config,
        default_config_sha256=hashlib.sha256(config).hexdigest(),
        approvers=accepted.persons,
        approval_expires=accepted.expires,
    )


def sandbox_limits(limits: Limits) -> SandboxLimits:
    return SandboxLimits(**limits.amounts())


def _compiled(schema: JsonObject | None) -> CompiledSchema | None:
    return None if schema is None else compile_schema(schema)


_ABIS: dict[str, Abi] = {"component": "component", "image": "image", "command": "command"}
