"""agentctl change: what authors and reviewers do with proposed versions.

All that `show` shows and `approve` signs is derived here, from bytes checked here; the other commands show the control
plane's word.
"""

from typing import TYPE_CHECKING, Any

import click

from client.agentctl import connections
from client.agentctl.exit_codes import ExitCode
from client.agentctl.inputs import require_terminal
from client.agentctl.mutations import mutation_fields, mutation_options
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
        "waiting_for": list(message.waiting_for),
        "state_reason": message.state_reason,
        "updated": message.update_time.ToJsonString(),
        "planned": message.planned,
        "etag": message.etag,
    }


def change_name(text: str) -> str:
    """Accept ``7`` for ``changes/7``."""
    return f"changes/{text}" if text.isdigit() else text


@change.command("list")
@click.option(
    "--state",
    type=click.Choice(
        [
            "draft",
            "in_review",
            "approved",
            "active",
            "superseded",
            "deprecated",
            "revoked",
            "rejected",
            "withdrawn",
        ]
    ),
    help="Only changes in this state.",
)
@click.option(
    "--waiting-for", "person", metavar="me|PERSON", default="", help="Only changes that wait for this person to act."
)
def list_changes(state: str | None, person: str) -> None:
    """List changes, newest first, with whom each one waits for."""
    from agentfactory.admin.v1 import admin_pb2 as pb
    from agentfactory.admin.v1.admin_pb2_grpc import ChangeServiceStub

    wanted = pb.ChangeState.Value(f"CHANGE_STATE_{state.upper()}") if state else pb.CHANGE_STATE_UNSPECIFIED
    profile = connections.profile()
    whom = connections.person(profile) if person == "me" else person
    with connections.admin_channel(profile) as channel:
        stub = ChangeServiceStub(channel)
        found = connections.all_pages(
            lambda token: stub.ListChanges(
                pb.ListChangesRequest(page_size=200, page_token=token, state=wanted, waiting_for=whom), timeout=10.0
            ),
            "changes",
        )
    rows = [change_values(one) for one in found]
    emit_table(
        rows,
        ("change", "state", "template", "author", "approvers", "threshold", "waiting_for", "generation"),
        empty=f"nothing waits for {whom}" if whom else "no changes",
    )


@change.command()
@click.argument("name", metavar="CHANGE")
def history(name: str) -> None:
    """Show who did what to CHANGE and when, with comments and reasons, as the control plane recorded it."""
    from agentfactory.admin.v1 import admin_pb2 as pb
    from agentfactory.admin.v1.admin_pb2_grpc import ChangeServiceStub

    with connections.admin_channel(connections.profile()) as channel:
        stub = ChangeServiceStub(channel)
        found = connections.all_pages(
            lambda token: stub.ListChangeEvents(
                pb.ListChangeEventsRequest(name=change_name(name), page_size=200, page_token=token), timeout=10.0
            ),
            "events",
        )
    rows = [
        {
            "at": one.create_time.ToJsonString(),
            "person": one.person,
            "action": one.action,
            "before": pb.ChangeState.Name(one.before).removeprefix("CHANGE_STATE_") if one.before else None,
            "after": pb.ChangeState.Name(one.after).removeprefix("CHANGE_STATE_"),
            "text": one.text,
        }
        for one in found
    ]
    emit_table(rows, ("at", "person", "action", "after", "text"))


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
@mutation_options()
def approve(name: str, yes: bool, break_glass: bool, **options: Any) -> None:  # noqa: FBT001
    """Derive CHANGE here, show it, sign digest and capabilities with your own key, and hand in the signature."""
    from agentfactory.admin.v1 import admin_pb2 as pb
    from agentfactory.admin.v1.admin_pb2_grpc import ChangeServiceStub

    from client.review import sign_review

    if not yes:
        require_terminal()
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
            pb.ApproveChangeRequest(name=change_name(name), envelope=envelope, **mutation_fields(options)),
            timeout=60.0,
        )
    values = change_values(after)
    emit(
        values,
        text=f"{after.name} {values['state']}: approved by {', '.join(after.approvers)} "
        f"({len(after.approvers)} of {after.threshold} needed)",
    )
    if len(after.approvers) < after.threshold and not options["validate_only"]:
        note("waiting for further approvals")
        raise click.exceptions.Exit(ExitCode.WAITING)


@change.command()
@click.argument("name", metavar="CHANGE")
@mutation_options()
def submit(name: str, **options: Any) -> None:
    """Put your draft CHANGE into review, resolved and derived anew; exit 10 when it waits for approvals."""
    after = _ask("SubmitChange", name, options)
    _tell(after, f"waits for {', '.join(after.waiting_for)}")
    if not options["validate_only"]:
        note("waiting for approval: agentctl change show|approve CHANGE")
        raise click.exceptions.Exit(ExitCode.WAITING)


@change.command()
@click.argument("name", metavar="CHANGE")
@click.option("--reason", required=True, help="Why; the author reads it.")
@mutation_options()
def reject(name: str, reason: str, **options: Any) -> None:
    """Reject CHANGE, as a reviewer of its domain."""
    _tell(_ask("RejectChange", name, options, reason=reason))


@change.command()
@click.argument("name", metavar="CHANGE")
@click.option("--reason", default="", help="Why; kept with it.")
@mutation_options()
def withdraw(name: str, reason: str, **options: Any) -> None:
    """Take back CHANGE, which you submitted; its version is free again."""
    _tell(_ask("WithdrawChange", name, options, reason=reason))


@change.command()
@click.argument("name", metavar="CHANGE")
@click.argument("text")
@mutation_options()
def comment(name: str, text: str, **options: Any) -> None:
    """Add TEXT (or @file, or - for standard input) to the history of CHANGE."""
    from client.agentctl.inputs import read_input

    _tell(_ask("CommentOnChange", name, options, text=read_input(text)))


@change.command()
@click.argument("name", metavar="CHANGE")
@click.option("--reason", required=True, help="What to use instead; who builds on it reads this.")
@mutation_options()
def deprecate(name: str, reason: str, **options: Any) -> None:
    """Mark the published version of CHANGE: nothing new should build on it. It runs on where the plan names it."""
    _tell(_ask("DeprecateChange", name, options, reason=reason))


@change.command()
@click.argument("name", metavar="CHANGE")
@click.option("--reason", default="", help="Why; kept with it.")
@mutation_options()
def restore(name: str, reason: str, **options: Any) -> None:
    """Take the mark of a deprecated version away again."""
    _tell(_ask("RestoreChange", name, options, reason=reason))


def _ask(method: str, name: str, options: dict[str, Any], **fields: str) -> Any:
    """Call a method of ChangeService that takes a change's name and returns the change."""
    from agentfactory.admin.v1 import admin_pb2 as pb
    from agentfactory.admin.v1.admin_pb2_grpc import ChangeServiceStub

    request = getattr(pb, f"{method}Request")(name=change_name(name), **fields, **mutation_fields(options))
    with connections.admin_channel(connections.profile()) as channel:
        return getattr(ChangeServiceStub(channel), method)(request, timeout=60.0)


def _tell(after: Any, more: str = "") -> None:
    values = change_values(after)
    said = more or after.state_reason
    emit(values, text=f"{after.name} ({after.template}) {values['state']}" + (f": {said}" if said else ""))
