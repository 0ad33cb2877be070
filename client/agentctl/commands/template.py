"""agentctl template: what authors do with templates."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from client.agentctl import connections
from client.agentctl.commands.change import change_values
from client.agentctl.exit_codes import ExitCode
from client.agentctl.inputs import read_file_argument, read_input, read_object
from client.agentctl.output import emit, emit_table, fail_line, is_json, note, printable, progress, warn

if TYPE_CHECKING:
    from client.local_files import LocalMount
    from templates.problems import Problem


@click.group()
def template() -> None:
    """Templates: the documents that describe kinds of agents."""


@template.command()
@click.argument("files", nargs=-1, required=True)
def validate(files: tuple[str, ...]) -> None:
    """Check template FILES (or - for standard input); every problem with its place. Exit 3 when there is one."""
    from templates.document import read_template
    from templates.problems import InvalidDocumentError

    rows: list[dict[str, Any]] = []
    for path in files:
        name, data = read_file_argument(path)
        try:
            read_template(data)
        except InvalidDocumentError as error:
            rows += [problem_values(name, problem) for problem in error.problems]
            for problem in error.problems:
                if not is_json():
                    click.echo(printable(f"{name}:{problem}"))
        else:
            note(f"{name}: ok")
    if is_json():
        emit(rows)
    if rows:
        raise click.exceptions.Exit(ExitCode.VALIDATION)


def problem_values(file: str, problem: "Problem") -> dict[str, Any]:
    """Return one problem as plain values."""
    return {
        "file": file,
        "line": problem.line,
        "column": problem.column,
        "code": str(problem.code),
        "pointer": problem.pointer,
        "message": problem.message,
    }


@template.command("import")
@click.argument("file")
@click.option("--domain", default="", help="Domain for a document that names none.")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the template here instead of stdout."
)
def import_document(file: str, domain: str, out: Path | None) -> None:
    """Convert FILE, a document of the earlier system, and say what was dropped and assumed."""
    from client.documents import InvalidFileError
    from templates.convert import convert
    from templates.names import is_word
    from templates.problems import InvalidDocumentError

    if domain and not is_word(domain):
        raise click.BadParameter(
            f"expected 2 to 41 of a-z 0-9 _ - that begin with a letter, got {domain!r}", param_hint="--domain"
        )
    name, data = read_file_argument(file)
    try:
        converted = convert(data, domain=domain or None)
    except InvalidDocumentError as error:
        raise InvalidFileError(name, error.problems) from error
    for one in converted.dropped:
        note(f"dropped: {one.pointer}: {one.message}")
    for one in converted.assumed:
        note(f"assumed: {one.pointer}: {one.message}")
    text = converted.to_bytes().decode()
    if out:
        try:
            out.write_text(text)
        except OSError as error:
            raise click.BadParameter(f"cannot write {out}: {error.strerror}", param_hint="--out") from error
        note(f"written to {out}")
    else:
        click.echo(text, nl=False)


@template.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--validate-only", is_flag=True, help="Let the control plane check, and store nothing.")
def publish(files: tuple[Path, ...], validate_only: bool) -> None:  # noqa: FBT001
    """Submit FILES with their code for review; exit 10 when changes wait for approvals."""
    from agentfactory.admin.v1 import admin_pb2 as pb

    from client.publishing import read_submission, submit

    submissions = [read_submission(path) for path in files]
    rows = []
    with connections.admin_channel(connections.profile()) as channel:
        for submission in submissions:
            with progress(f"submitting {submission.filename}"):
                change = submit(channel, submission, validate_only=validate_only)
            rows.append(change_values(change))
            for line in change.warnings:
                warn(line)
    emit_table(rows, ("change", "state", "template", "sha256", "threshold", "reviewers"))
    if not validate_only and any(row["state"] == pb.ChangeState.Name(pb.CHANGE_STATE_IN_REVIEW)[13:] for row in rows):
        note("waiting for approval: agentctl change show|approve CHANGE")
        raise click.exceptions.Exit(ExitCode.WAITING)


@template.command("list")
@click.option("--domain", default="", help="Only this domain.")
@click.option("--outdated", is_flag=True, help="Only templates whose parent has a newer approved version.")
def list_templates(domain: str, outdated: bool) -> None:  # noqa: FBT001
    """List templates on the control plane."""
    from agentfactory.admin.v1 import admin_pb2 as pb
    from agentfactory.admin.v1.admin_pb2_grpc import TemplateServiceStub

    with connections.admin_channel(connections.profile()) as channel:
        stub = TemplateServiceStub(channel)
        found = connections.all_pages(
            lambda token: stub.ListTemplates(
                pb.ListTemplatesRequest(page_size=200, page_token=token, domain=domain, outdated=outdated), timeout=10.0
            ),
            "templates",
        )
    rows = [
        {
            "template": one.name,
            "state": pb.ChangeState.Name(one.state).removeprefix("CHANGE_STATE_"),
            "sha256": one.sha256.hex(),
            "author": one.author,
            "approvers": list(one.approvers),
            "role": one.role,
            "outdated": one.outdated,
        }
        for one in found
    ]
    emit_table(rows, ("template", "state", "role", "author", "approvers", "outdated"), empty="no templates")


@template.command()
@click.argument("name")
def show(name: str) -> None:
    """Show one template (domain/name@version, or domain/name for the newest approved) as it was resolved."""
    from agentfactory.admin.v1 import admin_pb2 as pb
    from agentfactory.admin.v1.admin_pb2_grpc import TemplateServiceStub

    with connections.admin_channel(connections.profile()) as channel:
        found = TemplateServiceStub(channel).GetTemplate(pb.GetTemplateRequest(name=name), timeout=10.0)
    resolved = json.loads(found.resolved)
    emit(
        {
            "template": found.name,
            "sha256": found.sha256.hex(),
            "approvers": list(found.approvers),
            "resolved": resolved,
        },
        text=json.dumps(resolved, ensure_ascii=False, indent=2),
    )


@template.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--input", "text", required=True, help="Input: text, @file or -.")
@click.option("--config", default="{}", help="Configuration over the template's default_config: JSON, @file or -.")
@click.option(
    "--grant",
    "grants",
    multiple=True,
    metavar="kv|files=MOUNT=DIR[:rw]",
    help="Allow this grant of the template, and nothing else: kv, or a directory for a mount of files.",
)
@click.option(
    "--parent",
    "parents",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Parents, nearest first.",
)
@click.option(
    "--image",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=None,
    help="Module of the image that runs a source; build/images/<image>.wasm by default.",
)
def run(
    file: Path, text: str, config: str, grants: tuple[str, ...], parents: tuple[Path, ...], image: Path | None
) -> None:
    """Run the unsigned template FILE once in a local sandbox, with only the grants named here."""
    from client.local_run import LocalRun, run_template

    granted, mounts = _local_grants(grants)
    found: LocalRun = run_template(
        file,
        text=read_input(text),
        config=read_object(config, option="--config"),
        granted=granted,
        mounts=mounts,
        parents=parents,
        image=image,
        tell=note,
    )
    warn(
        f"{found.template} is unsigned: nobody approved it; it ran here with {', '.join(sorted(grants)) or 'no grants'}"
    )
    for line in found.logs:
        note(f"[{line['at_ms']:8.1f} ms] {line['level']}: {line['message']}")
    if is_json():
        emit(found.to_json())
    elif found.output is not None:
        click.echo(printable(found.output))
    if not is_json():
        usage = found.usage
        note(
            f"receipt: fuel {usage['fuel']:,}  time {usage['wall_ms']:.1f} ms (guest {usage['guest_ms']:.1f} ms)  "
            f"host calls {usage['host_calls']}  bytes out {usage['output_bytes']:,}"
        )
    if found.failure:
        fail_line(found.failure)
        raise click.exceptions.Exit(ExitCode.FINDINGS)


def _local_grants(grants: tuple[str, ...]) -> "tuple[frozenset[str], list[LocalMount]]":
    """Return the interfaces that ``--grant`` allows, and the directories that it names."""
    from client.local_files import LocalMount

    granted: set[str] = set()
    mounts = []
    for grant in grants:
        kind, _, rest = grant.partition("=")
        try:
            if kind == "files":
                mounts.append(LocalMount.parse(rest))
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--grant") from error
        if kind != "files" and grant != "kv":
            message = f"expected kv or files=MOUNT=DIR[:rw], got {grant}"
            raise click.BadParameter(message, param_hint="--grant")
        granted.add(kind)
    return frozenset(granted), mounts
