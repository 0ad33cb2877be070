"""Which role may list which path: fixed here, never found in metadata."""

import re
from collections.abc import Mapping

from tuf.api.metadata import Targets

from templates.acceptance import AcceptedTemplate
from templates.charter import Charter
from templates.names import VERSION_PATTERN, WORD_PATTERN, TemplateRef
from templates.resolved import PinnedModule, PinnedSource
from templates.trusted_set_errors import CodeUnlistedError, MetadataInvalidError

CHARTER_PATH, PLAN_PATH = "charter.json", "plan.json"
PLAN_ROLE, LIBRARY_PREFIX = "plan", "library-"
_DOCUMENT_PATH = re.compile(
    rf"(?P<domain>{WORD_PATTERN})/(?:templates/(?P<name>{WORD_PATTERN}@{VERSION_PATTERN})\.json"
    rf"|approvals/(?P<approval>{WORD_PATTERN}@{VERSION_PATTERN})\.dsse\.json)"
)


def template_path(ref: TemplateRef) -> str:
    return f"{ref.domain}/templates/{ref.name}@{ref.version}.json"


def approval_path(ref: TemplateRef) -> str:
    return f"{ref.domain}/approvals/{ref.name}@{ref.version}.dsse.json"


def code_path(domain: str, sha256: str) -> str:
    return f"{domain}/code/{sha256}"


def read_document_path(path: str) -> tuple[TemplateRef, bool] | None:
    """Return the template that a path is about, and whether it is its approval; None for any other path."""
    found = _DOCUMENT_PATH.fullmatch(path)
    if found is None:
        return None
    return TemplateRef.parse(f"{found['domain']}/{found['name'] or found['approval']}"), found["name"] is None


def delegated_names(charter: Charter) -> tuple[str, ...]:
    """Return the roles below targets: the plan, and one library per domain."""
    return (PLAN_ROLE, *(f"{LIBRARY_PREFIX}{domain}" for domain in sorted(charter.domains)))


def check_delegations(targets: Targets, charter: Charter) -> None:
    """The second half of T5, which needs the charter: who may say what is fixed, not found."""
    expected = {PLAN_ROLE: [PLAN_PATH]} | {
        f"{LIBRARY_PREFIX}{domain}": library_paths(domain) for domain in charter.domains
    }
    roles = targets.delegations.roles if targets.delegations else None
    got = {name: role.paths for name, role in (roles or {}).items()}
    if got != expected:
        wrong = sorted(str(name) for name in got.keys() | expected.keys() if got.get(name) != expected.get(name))
        raise MetadataInvalidError(
            f"expected plan and a library per domain with their own paths, got others: {', '.join(wrong)}",
            role="targets",
        )


def library_paths(domain: str) -> list[str]:
    """Return what the library of ``domain`` may list; patterns of TUF do not cross a slash."""
    return [f"{domain}/templates/*", f"{domain}/approvals/*", f"{domain}/code/*"]


def check_code_is_listed(accepted: AcceptedTemplate, libraries: Mapping[str, Targets]) -> None:
    """The second half of T10: code can be fetched only if its library lists it, with the length that was approved."""
    match accepted.resolved.code:
        case PinnedSource(source=own) | PinnedModule(module=own):
            role = f"{LIBRARY_PREFIX}{accepted.ref.domain}"
            info = libraries[role].targets.get(code_path(accepted.ref.domain, own.sha256))
            if info is None or info.length != own.length or info.hashes.get("sha256") != own.sha256:
                raise CodeUnlistedError(
                    f"{accepted.ref}: expected code {own.sha256} of {own.length} bytes listed, got another or none",
                    role=role,
                )
    if accepted.image is not None:
        check_code_is_listed(accepted.image, libraries)
