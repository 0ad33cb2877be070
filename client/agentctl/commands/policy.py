"""agentctl policy: the admission policies as files, and as they are in force."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from client.agentctl import connections
from client.agentctl.commands.break_glass import break_glass
from client.agentctl.commands.change import change_name, change_values
from client.agentctl.commands.template import problem_values
from client.agentctl.exit_codes import ExitCode
from client.agentctl.output import emit, emit_table, is_json, note, printable, progress

if TYPE_CHECKING:
    from client.policy_files import Outcome
    from templates.policies.decision import Verdict
    from templates.policies.facts import Question
    from templates.policies.policy_set import InvalidPolicyError, PolicySet
    from templates.policies.standing import Standing

_PATHS = click.argument("paths", nargs=-1, required=True, metavar="PATH…", type=click.Path(exists=True, path_type=Path))


@click.group()
def policy() -> None:
    """Admission policies in Cedar: what may be submitted, approved and made active."""


@policy.command()
@_PATHS
def check(paths: tuple[Path, ...]) -> None:
    """Check Cedar files (or folders of them) as one set: syntax, names, types. Exit 3 when there is a problem."""
    from client.policy_files import policy_paths, read_policy_files
    from templates.policies.policy_set import InvalidPolicyError

    try:
        found = read_policy_files(policy_paths(paths))
    except InvalidPolicyError as error:
        raise _shown(error) from error
    note(f"{len(found.policies)} policies in {len(found.files)} files: ok")
    if is_json():
        emit([])


@policy.command()
@_PATHS
@click.option("--defaults", is_flag=True, help="Test the built-in defaults instead of the Cedar files.")
def test(paths: tuple[Path, ...], defaults: bool) -> None:  # noqa: FBT001
    """Ask the questions of *.cases.json in PATH… (files or folders) of the *.cedar there; exit 1 when one fails."""
    from client.policy_files import CASES_SUFFIX, policy_paths, read_cases, read_policy_files, run
    from templates.policies.decision import BUILT_IN
    from templates.policies.policy_set import InvalidPolicyError, default_policies

    cedar = [path for path in paths if path.is_dir() or not path.name.endswith(CASES_SUFFIX)]
    files = [each for path in paths for each in (sorted(path.glob(f"*{CASES_SUFFIX}")) if path.is_dir() else [path])]
    cases = [each for each in files if each.name.endswith(CASES_SUFFIX)]
    if not cases:
        raise click.UsageError(f"expected at least one *{CASES_SUFFIX}")
    try:
        policies = default_policies() if defaults else read_policy_files(policy_paths(cedar))
        named = BUILT_IN if defaults else "the files"
        read = [each for path in cases for each in read_cases(str(path), path.read_bytes())]
    except InvalidPolicyError as error:
        raise _shown(error) from error
    outcomes = run(policies, read, named=named)
    _emit_outcomes(outcomes, len(policies.policies))
    if not all(each.held for each in outcomes):
        raise click.exceptions.Exit(ExitCode.FINDINGS)


@policy.command()
@click.argument("name", metavar="CHANGE")
@click.option(
    "--action", type=click.Choice(["submit", "approve", "activate"]), default="activate", help="What is asked for."
)
@click.option("--person", default="", help="On whose behalf; its author, or you for approve, by default.")
@click.option("--at", "moment", default="", help="Ask as of then, for instance 2026-12-24T10:00:00Z.")
@click.option("--broken-glass", is_flag=True, help="Ask as if a glass were broken for it.")
@click.option(
    "--policies",
    "paths",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="Ask these files instead of the policies in force.",
)
def explain(
    name: str,
    action: str,
    person: str,
    moment: str,
    broken_glass: bool,  # noqa: FBT001
    paths: tuple[Path, ...],
) -> None:
    """Derive CHANGE on this machine and say which policies decide about it; exit 1 when they deny.

    With -o json the question stands beside the answer, in the form of a case for `agentctl policy test`.
    """
    question, verdict = _explained(name, action, person, moment, paths, broken_glass=broken_glass)
    case: dict[str, Any] = {"name": f"{action} of {question.subject.ref}", **question.to_json()}
    case |= {
        "expect": "allow" if verdict.is_permitted else "deny",
        "policies": sorted({each.name for each in verdict.denials}),
    }
    emit({**verdict.to_json(), "case": case}, text=_verdict_text(question, verdict))
    if not verdict.is_permitted:
        raise click.exceptions.Exit(ExitCode.FINDINGS)


@policy.command()
@click.option("--defaults", is_flag=True, help="Show the built-in policies, as a beginning for your own.")
@click.option("--schema", "schema_wanted", is_flag=True, help="Show the Cedar schema: what policies can speak of.")
def show(defaults: bool, schema_wanted: bool) -> None:  # noqa: FBT001
    """Show the policies in force, verified on this machine by the approvals of the charter's reviewers."""
    from templates.policies.policy_set import default_policies, schema_text

    if schema_wanted:
        emit({"schema": schema_text()}, text=schema_text().rstrip("\n"))
        return
    if defaults:
        found = default_policies()
        emit(_set_values(found), text="\n".join(found.files.values()).rstrip("\n"))
        return
    standing = _standing()
    values = {
        "policies": standing.named,
        "sha256": standing.sha256,
        "approvers": sorted(standing.approvers),
        "approved_until": standing.approved_until.isoformat() if standing.approved_until else None,
        "problem": standing.problem,
        **(_set_values(standing.policies) if standing.policies else {"files": {}, "list": []}),
    }
    emit(values, text=_standing_text(standing))
    if standing.policies is None:
        raise click.exceptions.Exit(ExitCode.FINDINGS)


@policy.command()
@_PATHS
@click.option("--version", required=True, help="Version of this set, higher than the present one.")
@click.option("--description", default="", help="What is new, in a line.")
@click.option("--validate-only", is_flag=True, help="Let the control plane check, and store nothing.")
def submit(paths: tuple[Path, ...], version: str, description: str, validate_only: bool) -> None:  # noqa: FBT001
    """Submit Cedar files as the next version of policies/admission, to be approved like a template. Exit 10."""
    from client.policy_files import policy_paths, read_policy_files
    from client.publishing import Submission
    from client.publishing import submit as submit_document
    from templates.policies.policy_set import InvalidPolicyError

    try:
        found = read_policy_files(policy_paths(paths))
    except InvalidPolicyError as error:
        raise _shown(error) from error
    document = json.dumps(found.document(version, description=description), ensure_ascii=False, indent=2)
    submission = Submission(filename="admission.json", document=document.encode(), blobs=())
    with progress("submitting policies"), connections.admin_channel(connections.profile()) as channel:
        change = submit_document(channel, submission, validate_only=validate_only)
    values = change_values(change)
    emit_table([values], ("change", "state", "template", "sha256", "threshold", "reviewers"))
    if values["state"] == "IN_REVIEW":
        note("waiting for approval: agentctl change show|approve CHANGE")
        raise click.exceptions.Exit(ExitCode.WAITING)


def _standing() -> "Standing":
    from client.active_templates import fetch_active
    from client.admission import fetch_standing
    from templates.charter import read_charter

    found = connections.profile()
    charter = read_charter((found.trust_directory / "charter.json").read_bytes())
    now = datetime.now(UTC)
    with connections.admin_channel(found) as channel:
        present = fetch_active(channel, charter=charter, trust_directory=found.trust_directory, now=now)
        return fetch_standing(channel, charter=charter, present=present, memory=found.directory / "review", now=now)


def _explained(
    name: str, action: str, person: str, moment: str, paths: tuple[Path, ...], *, broken_glass: bool
) -> "tuple[Question, Verdict]":
    from client.admission import question_again
    from client.policy_files import policy_paths, read_policy_files
    from client.review import review
    from templates.policies.facts import Action
    from templates.policies.policy_set import InvalidPolicyError
    from templates.policies.standing import Standing

    found = connections.profile()
    now = _moment(moment)
    with progress(f"deriving {name} on this machine"), connections.admin_channel(found) as channel:
        seen = review(
            channel,
            change_name(name),
            trust_directory=found.trust_directory,
            cache=found.directory / "review",
            person=person or connections.person(found),
        )
    if seen.admission is None:
        raise click.UsageError("no policy judges a change of the policies: agentctl change show compares them")
    try:
        standing = Standing(policies=read_policy_files(policy_paths(paths))) if paths else seen.admission.standing
    except InvalidPolicyError as error:
        raise _shown(error) from error
    question = question_again(seen.admission, Action(action), person=person, now=now, break_glass=broken_glass)
    verdict = standing.decide(question)
    return question, verdict


def _moment(text: str) -> datetime | None:
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise click.BadParameter(
            f"expected a moment like 2026-12-24T10:00:00Z, got {text}", param_hint="--at"
        ) from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _shown(error: "InvalidPolicyError") -> click.exceptions.Exit:
    """Print every problem with its file and place; the answer is the exit to raise."""
    if is_json():
        emit([problem_values(each.file, each.problem) for each in error.found])
    for each in error.found if not is_json() else ():
        click.echo(printable(str(each)))
    return click.exceptions.Exit(ExitCode.VALIDATION)


def _emit_outcomes(outcomes: "tuple[Outcome, ...]", policies: int) -> None:
    if is_json():
        emit([each.to_json() for each in outcomes])
        return
    for each in outcomes:
        expected = "allow" if each.case.is_permitted else "deny"
        if each.case.policies:
            expected += f" by {', '.join(sorted(each.case.policies))}"
        click.echo(printable(f"{'ok    ' if each.held else 'FAILED'} {each.case.name}"))
        if not each.held:
            got = "; ".join(map(str, each.verdict.denials)) or "allow"
            click.echo(printable(f"       expected {expected}, got {got}"))
    held = sum(each.held for each in outcomes)
    note(f"{held} of {len(outcomes)} cases as expected, by {policies} policies")


def _verdict_text(question: "Question", verdict: "Verdict") -> str:
    answer = "permitted" if verdict.is_permitted else "denied"
    lines = [
        f"{question.action} of {question.subject.ref} by {question.principal.name}: {answer} by {verdict.policies}"
    ]
    lines += [f"  permits   {each.name} ({each.file}:{each.position.line})" for each in verdict.permitted_by]
    lines += [f"  denies    {each}" for each in verdict.denials]
    lines += [f"  overridden by a broken glass: {each}" for each in verdict.overridden]
    return "\n".join(lines)


def _set_values(found: "PolicySet") -> dict[str, Any]:
    return {"files": dict(found.files), "list": [each.to_json() for each in found.policies]}


def _standing_text(standing: "Standing") -> str:
    lines = [f"// {standing.named}"]
    if standing.approved_until:
        lines[0] += f", approved by {', '.join(sorted(standing.approvers))} until {standing.approved_until:%Y-%m-%d}"
    if standing.policies is None:
        return "\n".join([*lines, f"// everything is denied: {standing.problem}"])
    for file, text in sorted(standing.policies.files.items()):
        lines += [f"// ---- {file}", text.rstrip("\n")]
    return "\n".join(lines)


policy.add_command(break_glass)
