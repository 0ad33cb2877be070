"""agentctl: the command line of authors, reviewers and operators. Importing it imports no grpc, tuf or wasmtime."""

import importlib
import os
import sys
from pathlib import Path
from typing import Any, Final

import click

from client.agentctl.exit_codes import ExitCode
from client.agentctl.output import fail_line
from client.agentctl.tracing import traced

_COMMANDS: Final = {
    "address": "access:address",
    "agent": "agent:agent",
    "audit": "audit:audit",
    "change": "change:change",
    "demo": "demo:demo",
    "doctor": "doctor:doctor",
    "init": "init:init",
    "invocation": "invocation:invocation",
    "key": "key:key",
    "node": "node:node",
    "policy": "policy:policy",
    "receipt": "receipt:receipt",
    "recording": "recording:recording",
    "replay": "replay:replay",
    "revoke": "revoke:revoke",
    "rollout": "rollout:rollout",
    "secure-mode": "access:secure_mode",
    "selftest": "selftest:selftest",
    "template": "template:template",
    "up": "up:up",
    "whoami": "access:whoami",
}
_COMMAND_KEY: Final = "agentctl.command"

_CONTEXT: Final = {"help_option_names": ["-h", "--help"], "max_content_width": 120, "show_default": True}


class LazyGroup(click.Group):
    """Imports the module of a command when it is looked up."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(f"client.agentctl.commands.{module}"), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        verb = rest[0] if isinstance(command, click.Group) and rest and rest[0] in command.commands else ""
        ctx.meta[_COMMAND_KEY] = f"{name} {verb}".strip()
        return name, command, rest

    def invoke(self, ctx: click.Context) -> Any:
        with traced(os.environ, lambda: ctx.meta.get(_COMMAND_KEY, "")):
            return super().invoke(ctx)


@click.group(cls=LazyGroup, context_settings=_CONTEXT)
@click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=lambda: Path(os.environ.get("AGENTFACTORY_DIR", "agentfactory")),
    help="Directory of the installation's profile (AGENTFACTORY_DIR, else ./agentfactory).",
)
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="How data is printed.")
@click.option("--as", "identity", default="", help="Identity of the profile to show (a person or a service).")
@click.version_option(package_name="agent-factory")
@click.pass_context
def cli(context: click.Context, directory: Path, output: str, identity: str) -> None:
    """Agent Factory: governed agents in sandboxes.

    Data goes to stdout, everything else to stderr. Exit status: 0 ok, 1 findings or differences, 2 usage,
    3 validation, 4 not found, 5 not allowed, 6 conflict, 7 unavailable or deadline, 8 trust or signature, 9 partly
    done, 10 waiting for approval.
    """
    del output
    context.obj = {"directory": directory.expanduser(), "identity": identity}


def main() -> None:
    """Run agentctl and exit with one of `ExitCode`."""
    try:
        status = cli.main(standalone_mode=False)
    except click.exceptions.Exit as stop:
        status = stop.exit_code
    except click.ClickException as error:
        error.show()
        status = ExitCode.USAGE
    except (click.Abort, KeyboardInterrupt):
        fail_line("interrupted")
        status = 130
    except (BrokenPipeError, SystemExit):  # click turns the former into the latter; nothing else here exits so
        status = _reader_gone()
    except Exception as error:
        status = _failed(error)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        status = _reader_gone()
    sys.exit(status if isinstance(status, int) else ExitCode.OK)


def _reader_gone() -> ExitCode:
    """``agentctl … | head``: whoever read the output has enough; what is still buffered goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return ExitCode.OK


def _failed(error: Exception) -> ExitCode:
    from client.agentctl.failures import describe, exit_code_of
    from templates.reasons import AgentFactoryError

    if isinstance(error, AgentFactoryError):
        for line in describe(error):
            fail_line(line)
        return exit_code_of(error)
    if isinstance(error, OSError):
        fail_line(str(error))
        return ExitCode.UNAVAILABLE
    if os.environ.get("AGENTFACTORY_TRACE"):
        raise error
    fail_line(f"internal error: {type(error).__name__}: {error} (set AGENTFACTORY_TRACE=1 for the trace)")
    return ExitCode.UNAVAILABLE


if __name__ == "__main__":
    main()
