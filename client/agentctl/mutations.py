"""Options of every command that changes something on the control plane: request id, etag, and only trying."""

import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import click

from client.agentctl.output import note

F = TypeVar("F", bound=Callable[..., Any])

# Each of these carries a request id: sent again, it is done once (docs/governance.md).
REPEATABLE: Final = frozenset(
    f"/agentfactory.admin.v1.{method}"
    for method in (
        "ChangeService/ApproveChange",
        "ChangeService/CommentOnChange",
        "ChangeService/DeprecateChange",
        "ChangeService/FetchChange",
        "ChangeService/GetChange",
        "ChangeService/ListChangeEvents",
        "ChangeService/ListChanges",
        "ChangeService/RejectChange",
        "ChangeService/RestoreChange",
        "ChangeService/SubmitChange",
        "ChangeService/WithdrawChange",
        "FleetService/ListNodes",
        "KeyService/GetTrust",
        "KeyService/ListRoles",
        "KeyService/UpdateTrust",
        "PolicyService/CloseBreakGlass",
        "PolicyService/ConfirmBreakGlass",
        "PolicyService/GetPolicy",
        "PolicyService/ListBreakGlass",
        "PolicyService/OpenBreakGlass",
        "RolloutService/ListGenerations",
        "RolloutService/Revoke",
        "RolloutService/Rollback",
        "TemplateService/GetTemplate",
        "TemplateService/ListTemplates",
    )
)


def mutation_options(*, etag: bool = True) -> Callable[[F], F]:
    """Give a command ``--validate-only``, ``--request-id`` and ``--etag``; it hands them to `mutation_fields`."""

    def decorate(command: F) -> F:
        if etag:
            command = click.option(
                "--etag",
                default="",
                help="Refuse (exit 6) unless this is its etag now: nothing moved since it was read.",
            )(command)
        command = click.option(
            "--request-id",
            type=click.UUID,
            default=None,
            show_default="a new one",
            help="UUID4 of this request: sent again under it, it is done once and answered the same.",
        )(command)
        return click.option(
            "--validate-only", is_flag=True, help="Check and show what would become of it; do nothing."
        )(command)

    return decorate


def mutation_fields(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what these options say as fields of a request."""
    fields: dict[str, Any] = {
        "request_id": str(options["request_id"] or uuid.uuid4()),
        "validate_only": options["validate_only"],
    }
    if "etag" in options:
        fields["etag"] = options["etag"]
    if options["validate_only"]:
        note("validate only: nothing is changed")
    return fields
