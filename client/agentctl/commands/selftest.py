"""agentctl selftest: the attack suite on this host, against a throw-away node."""

import asyncio
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from client.agentctl.exit_codes import ExitCode
from client.agentctl.output import emit_table, is_json, note

if TYPE_CHECKING:
    from client.selftest.attack import Case
    from client.selftest.runner import Result

_LEVELS: Final = ("rlimits-only", "landlock+seccomp", "full")
_COLUMNS: Final = ("class", "name", "held", "detail")


@click.command()
@click.option("--class", "classes", multiple=True, metavar="CLASS", help="Only attacks of this class; may be repeated.")
@click.option("--name", "names", multiple=True, metavar="NAME", help="Only this attack; may be repeated.")
@click.option("--list", "is_list", is_flag=True, help="Say which attacks there are, and run none.")
@click.option(
    "--min-level", "level", type=click.Choice(_LEVELS), default=_LEVELS[0], help="Lowest level of isolation that holds."
)
@click.option("--keep", is_flag=True, help="Leave the node's directory, with its log, behind.")
def selftest(classes: Sequence[str], names: Sequence[str], *, is_list: bool, level: str, keep: bool) -> None:
    """Attack a node of this host with hostile guests and callers, and say what held.

    A throw-away node with a development charter is started on loopback, in a temporary directory. Exits 0 only if
    everything held, 1 otherwise.
    """
    from client.selftest.attack import AttackClass
    from client.selftest.catalogue import all_cases, chosen

    if unknown := sorted(set(classes) - {str(each) for each in AttackClass}):
        raise click.BadParameter(
            f"expected one of {', '.join(AttackClass)}, got {', '.join(unknown)}", param_hint="--class"
        )
    cases = chosen(all_cases(), classes=classes, names=names)
    if not cases:
        raise click.UsageError("expected at least one attack, got a class and a name that do not belong together")
    if is_list:
        rows = [{"class": str(each.attack_class), "name": each.name, "summary": each.summary} for each in cases]
        emit_table(rows, ("class", "name", "summary"))
        return
    directory = Path(tempfile.mkdtemp(prefix="agentfactory-selftest-"))
    try:
        results = asyncio.run(_run(cases, directory, level))
    finally:
        if keep:
            note(f"the node's directory remains: {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)
    emit_table([each.to_json() for each in results], _COLUMNS)
    if not is_json():
        _summarise(results)
    if not all(each.held for each in results):
        raise click.exceptions.Exit(ExitCode.FINDINGS)


async def _run(cases: "Sequence[Case]", directory: Path, level: str) -> "list[Result]":
    from client.selftest.runner import Runner, level_result
    from client.selftest.suite import started

    async with started(cases, directory=directory, tell=note) as suite:
        runner = Runner(suite)
        results = []
        for number, case in enumerate(cases, start=1):
            result = await runner.run(case)
            results.append(result)
            verdict = "held" if result.held else f"DID NOT HOLD: {result.detail}"
            note(f"[{number}/{len(cases)}] {case.attack_class}/{case.name}: {verdict}")
        return [*results, level_result(await suite.isolation(), demanded=level, levels=_LEVELS)]


def _summarise(results: "Sequence[Result]") -> None:
    classes = dict.fromkeys(each.attack_class for each in results)
    for each in classes:
        of_class = [result.held for result in results if result.attack_class == each]
        note(f"{each}: {sum(of_class)} of {len(of_class)} held")
    (level,) = [result.detail for result in results if result.name == "isolation_level"]
    note(f"isolation: {level}")
