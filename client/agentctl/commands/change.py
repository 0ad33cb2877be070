"""agentctl change: what a reviewer does. All that is shown and signed is derived here, from bytes checked here."""

from typing import TYPE_CHECKING, Any

import click

from client.agentctl import connections
from client.agentctl.exit_codes import ExitCode
from client.agentctl.output import emit, emit_table, is_json, note, printable, progress

if TYPE_CHECKING:
    from client.review import Review


@click.group()
def change() -> None:
    """Proposed template versions, waiting for approvals."""


def change_values(message: Any) -> dict[str, Any]:
    """Return a Change message as plain values."""
    from agentfactory.admin.v1 import admin_pb2 as pb

    return {
        "change": message.name,
        "state": pb.ChangeState.Name(message.state).removeprefix("CHANGE_STATE_"),
        "template": message.template,
        "sha256": message.sha256.hex(),
        "author": message.author,
        "created": message.create_time.ToJsonString(),
        "threshold": message.threshold,
        "approvers": list(message.approvers),
        "reviewers": list(message.reviewers),
        "reject_reason": message.reject_reason,
        "generation": message.generation,
        "warnings": list(message.warnings),
    }


def change_name(text: str) -> str:
    """Accept ``7`` for ``changes/7``."""
    return f"changes/{text}" if text.isdigit() else text


@change.command("list")
@click.option(
    "--state",
    type=click.Choice(["in_review", "approved", "active", "rejected", "revoked", "superseded"]),
    help="Only changes in this state.",
)
def list_changes(state: str | None) -> None:
    """List changes, newest first."""
    from agentfactory.admin.v1 import admin_pb2 as pb
    from agentfactory.admin.v1.admin_pb2_grpc import ChangeServiceStub

    wanted = pb.ChangeState.Value(f"CHANGE_STATE_{state.upper()}") if state else pb.CHANGE_STATE_UNSPECIFIED
    with connections.admin_channel(connections.profile()) as channel:
        stub = ChangeServiceStub(channel)
        found = connections.all_pages(
            lambda token: stub.ListChanges(
                pb.ListChangesRequest(page_size=200, page_token=token, state=wanted), timeout=10.0
            ),
            "changes",
        )
    rows = [change_values(one) for one in found]
    emit_table(
        rows, ("change", "state", "template", "author", "approvers", "threshold", "generation"), empty="no changes"
    )


def _review(name: str) -> "Review":
    from client.review import review

    found = connections.profile()
    with progress(f"deriving {name} on this machine"), connections.admin_channel(found) as channel:
        return review(
            channel,
            change_name(name),
            trust_directory=found.trust_directory,
            cache=found.directory / "review",
            person=connections.person(found),
        )


@change.command()
@click.argument("name", metavar="CHANGE")
def show(name: str) -> None:
    """Show what CHANGE can do and what it changes.

    Exit 1 when it widens what the active version may do, or when the admission policies deny it.
    """
    found = _review(name)
    if is_json():
        emit(found.to_json())
    else:
        click.echo(printable(found.describe()))
    if found.widens or (found.admission and not found.admission.is_permitted):
        raise click.exceptions.Exit(ExitCode.FINDINGS)


@change.command()
@click.argument("name", metavar="CHANGE")
@click.option("--yes", is_flag=True, help="Do not ask after showing what is signed.")
@click.option(
    "--break-glass", is_flag=True, help="Sign although the admission policies deny it, asked on this machine."
)
def approve(name: str, yes: bool, break_glass: bool) -> None:  # noqa: FBT001
    """Derive CHANGE here, show it, sign digest and capabilities with your own key, and hand in the signature."""
    from agentfactory.admin.v1 import admin_pb2 as pb
    from agentfactory.admin.v1.admin_pb2_grpc import ChangeServiceStub

    from client.review import sign_review

    found = connections.profile()
    person = connections.person(found)
    review = _review(name)
    if not yes:
        click.echo(printable(review.describe()), err=True)
        click.confirm(f"Sign as {person}?", abort=True, err=True)
    if review.admission and not break_glass:
        review.admission.require_approval(str(review.resolved.ref))
    if person not in found.signing_keys:
        raise click.UsageError(f"the profile has no signing key for {person}: choose a reviewer with --as")
    envelope = sign_review(
        review, key_file=found.signing_keys[person], passphrase_file=found.passphrase_files.get(person)
    )
    with connections.admin_channel(found) as channel:
        after = ChangeServiceStub(channel).ApproveChange(
            pb.ApproveChangeRequest(name=change_name(name), envelope=envelope), timeout=60.0
        )
    values = change_values(after)
    emit(
        values,
        text=f"{after.name} {values['state']}: approved by {', '.join(after.approvers)} "
        f"({len(after.approvers)} of {after.threshold} needed)",
    )
    if len(after.approvers) < after.threshold:
        note("waiting for further approvals")
        raise click.exceptions.Exit(ExitCode.WAITING)


@change.command()
@click.argument("name", metavar="CHANGE")
@click.option("--reason", required=True, help="Why; the author reads it.")
def reject(name: str, reason: str) -> None:
    """Reject CHANGE."""
    from agentfactory.admin.v1 import admin_pb2 as pb
    from agentfactory.admin.v1.admin_pb2_grpc import ChangeServiceStub

    with connections.admin_channel(connections.profile()) as channel:
        after = ChangeServiceStub(channel).RejectChange(
            pb.RejectChangeRequest(name=change_name(name), reason=reason), timeout=10.0
        )
    emit(change_values(after), text=f"{after.name} rejected: {after.reject_reason}")
