"""agentctl template: what authors do with templates."""

import contextlib
import hashlib
import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from client.agentctl import connections
from client.agentctl.commands.change import change_values
from client.agentctl.exit_codes import ExitCode
from client.agentctl.failures import describe
from client.agentctl.inputs import read_file_argument, read_input, read_object
from client.agentctl.output import LOG_CUT, emit, emit_table, fail_line, is_json, note, printable, progress, warn
from client.agentctl.outside_options import Pairs, endpoints, outside_options, reach
from templates.reasons import AgentFactoryError

if TYPE_CHECKING:
    from client.local_files import LocalMount
    from client.local_run import LocalRun
    from templates.problems import Problem

LANGUAGES = ("python", "python-module", "javascript", "javascript-module", "c", "zig", "go")

parents_option = click.option(
    "--parent",
    "parents",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Parents, nearest first.",
)
image_option = click.option(
    "--image",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=None,
    help="Module of the image that runs a source; build/images/<image>.wasm by default.",
)


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
@click.option("--draft", is_flag=True, help="Keep it as your draft; `agentctl change submit` puts it into review.")
def publish(files: tuple[Path, ...], validate_only: bool, draft: bool) -> None:  # noqa: FBT001
    """Submit FILES with their code for review; exit 10 when changes wait for approvals."""
    from agentfactory.admin.v1 import admin_pb2 as pb

    from client.publishing import read_submission, submit

    submissions = [read_submission(path) for path in files]
    rows = []
    with connections.admin_channel(connections.profile()) as channel:
        for submission in submissions:
            with progress(f"submitting {submission.filename}"):
                change = submit(channel, submission, validate_only=validate_only, draft=draft)
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


def _grants(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if not re.fullmatch(r"kv|files=.+|http|http:[^=]+|llm:[^=]+=.+", value):
            expected = "expected kv, files=MOUNT=DIR[:rw], http, http:BINDING or llm:BINDING=URL"
            raise click.BadParameter(f"{expected}, got {value}")
    return values


@template.command()
@click.argument("name")
@click.option("--lang", "language", required=True, type=click.Choice(LANGUAGES), help="What to write it in.")
@click.option("--domain", default="dev", help="Domain of the template.")
@click.option("--dir", "folder", type=click.Path(file_okay=False, path_type=Path), help="Write here instead of ./NAME.")
def new(name: str, language: str, domain: str, folder: Path | None) -> None:
    """Begin an agent called NAME: a folder with a template, a source that works, and examples."""
    from client.authoring.languages import LANGUAGES as KNOWN
    from client.authoring.scaffold import begin
    from templates.names import is_word

    for what, word in (("NAME", name), ("--domain", domain)):
        if not is_word(word):
            raise click.BadParameter(
                f"expected 2 to 41 of a-z 0-9 _ - that begin with a letter, got {word!r}", param_hint=what
            )
    chosen = KNOWN[language]
    place = folder or Path(name)
    try:
        document = begin(chosen, name=name, domain=domain, folder=place)
    except OSError as error:
        raise click.BadParameter(f"cannot write {place}: {error.strerror}", param_hint="--dir") from error
    note(f"written to {document.parent}: {chosen.title} in {chosen.main}")
    build_first = f"agentctl template build {document.parent}; " if chosen.needs_build else ""
    note(f"next: {build_first}agentctl template test {document.parent}")
    emit({"template": str(document), "language": language}, text=str(document))


@template.command()
@click.argument("place", default=".", type=click.Path(exists=True, path_type=Path))
def build(place: Path) -> None:
    """Build the module or zip, with vendored packages, that the template in PLACE (a folder or a document) names."""
    from client.authoring.building import build as build_code

    made = build_code(document_at(place), tell=note)
    data = made.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    emit({"file": str(made), "bytes": len(data), "sha256": digest}, text=f"{made}  {len(data):,} bytes  {digest[:16]}")


@template.command()
@click.argument("place", default=".", type=click.Path(exists=True, path_type=Path))
@click.option("--record", is_flag=True, help="Ask the outside, and keep its answers in answers.json.")
@click.option("--live", is_flag=True, help="Ask the outside although there is an answers.json.")
@click.option(
    "--llm",
    "urls",
    multiple=True,
    metavar="BINDING=URL",
    callback=endpoints,
    help="The endpoint of an llm binding, which speaks OpenAI's protocol.",
)
@outside_options
@parents_option
@image_option
def test(
    place: Path,
    record: bool,  # noqa: FBT001
    live: bool,  # noqa: FBT001
    urls: Pairs,
    private: Pairs,
    secrets: Pairs,
    authorities: Path | None,
    llm_keys: Pairs,
    parents: tuple[Path, ...],
    image: Path | None,
) -> None:
    """Run the examples of the template in PLACE (a folder or a document) in the sandbox; exit 1 when one differs.

    Where an answers.json lies beside it, http and llm answer from there, and nothing is asked outside.
    """
    from client.authoring.examples import Network, run_examples

    if record and live:
        raise click.UsageError("expected --record or --live, got both")
    outside, models = reach(None, urls, private=private, secrets=secrets, authorities=authorities, llm_keys=llm_keys)
    found = run_examples(
        document_at(place),
        parents=parents,
        image=image,
        tell=note,
        network=Network.RECORD if record else Network.LIVE if live else Network.RECORDED,
        outside=outside,
        models=models,
    )
    for one in found:
        if not is_json():
            end = "ok" if one.holds else one.failure or "another answer"
            click.echo(printable(f"example {one.number}: {end}  ({one.wall_ms:.1f} ms, fuel {one.fuel:,})"))
        if not one.holds:
            for line in (*one.logs, *one.difference.splitlines()):
                note(f"  {line}")
    if is_json():
        emit([one.to_json() for one in found])
    if not found:
        warn("the template has no examples: reviewers see nothing of what it answers")
    if not all(one.holds for one in found):
        raise click.exceptions.Exit(ExitCode.FINDINGS)


def document_at(place: Path) -> Path:
    """Return the template document that ``place`` is, or that lies in it.

    Raises:
        click.BadParameter: there is none.
    """
    document = place / "template.json" if place.is_dir() else place
    if not document.exists():
        raise click.BadParameter(f"expected a template document, got no {document}", param_hint="PLACE")
    return document


@template.command()
@click.argument("place", type=click.Path(exists=True, path_type=Path))
@click.option("--input", "text", required=True, help="Input: text, @file or -.")
@click.option("--config", default="{}", help="Configuration over the template's default_config: JSON, @file or -.")
@click.option(
    "--grant",
    "grants",
    multiple=True,
    metavar="kv|files=MOUNT=DIR[:rw]|http|http:BINDING|llm:BINDING=URL",
    callback=_grants,
    help="Allow this grant; nothing else is. DIR: for a mount of files. URL: of an endpoint that speaks OpenAI's "
    "protocol.",
)
@outside_options
@parents_option
@image_option
@click.option("--watch", is_flag=True, help="Build and run again whenever a file beside the template changes.")
def run(
    place: Path,
    text: str,
    config: str,
    grants: tuple[str, ...],
    private: tuple[tuple[str, str], ...],
    secrets: tuple[tuple[str, str], ...],
    authorities: Path | None,
    llm_keys: tuple[tuple[str, str], ...],
    parents: tuple[Path, ...],
    image: Path | None,
    watch: bool,  # noqa: FBT001
) -> None:
    """Run the unsigned template in PLACE (a folder or a document) once in a local sandbox.

    Only the grants named here are given.
    """
    from client.local_run import LocalRun, run_template

    file = document_at(place)
    content, chosen = read_input(text), read_object(config, option="--config")
    granted, mounts = _local_grants(grants)
    bindings = frozenset(grant.removeprefix("http:") for grant in grants if grant.startswith("http:"))
    named = tuple(grant.removeprefix("llm:").partition("=") for grant in grants if grant.startswith("llm:"))
    outside, models = reach(
        None if "http" in grants else bindings,
        tuple((binding, url) for binding, _, url in named),
        private=private,
        secrets=secrets,
        authorities=authorities,
        llm_keys=llm_keys,
    )

    def once() -> LocalRun:
        return run_template(
            file,
            text=content,
            config=chosen,
            granted=granted,
            mounts=mounts,
            parents=parents,
            image=image,
            tell=note,
            outside=outside,
            models=models,
        )

    if not watch:
        show_run(once(), grants)
        return
    from client.authoring.building import build as build_code
    from client.authoring.watching import changes

    def build_and_run() -> None:
        try:
            build_code(file, tell=note)
            show_run(once(), grants)
        except AgentFactoryError as error:
            for line in describe(error):
                fail_line(line)
        except click.exceptions.Exit:
            pass  # the agent's failure was shown; the next change may mend it
        except OSError as error:
            fail_line(str(error))  # an editor replaces files: the next change shows it again

    watched = changes(file.parent, sleep=time.sleep)
    build_and_run()
    note(f"watching {file.parent}; Ctrl-C ends")
    with contextlib.suppress(KeyboardInterrupt):
        for changed in watched:
            note(f"--- changed: {', '.join(changed[:5])}")
            build_and_run()


def show_run(found: "LocalRun", grants: tuple[str, ...]) -> None:
    """Show a local run.

    Raises:
        click.exceptions.Exit: with FINDINGS, when the agent failed.
    """
    warn(
        f"{found.template} is unsigned: nobody approved it; it ran here with {', '.join(sorted(grants)) or 'no grants'}"
    )
    for line in found.logs:
        note(f"[{line['at_ms']:8.1f} ms] {line['level']}: {line['message']}")
    if found.logs_cut:
        warn(LOG_CUT)
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
        if not grant.startswith("files="):
            granted.add(grant.partition(":")[0])
            continue
        granted.add("files")
        try:
            mounts.append(LocalMount.parse(grant.removeprefix("files=")))
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--grant") from error
    return frozenset(granted), mounts
