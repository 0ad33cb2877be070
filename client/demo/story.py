"""How the demo tells what happens: chapters and facts for people, the same facts as one object for programs."""

from dataclasses import dataclass, field
from typing import Any

import click

from client.agentctl.output import printable
from templates.reasons import AgentFactoryError, Reason


class DemoFailedError(AgentFactoryError):
    """Something that the demo promises did not happen."""

    reason = Reason.DEMO_FAILED


@dataclass(slots=True)
class Story:
    """Facts by chapter. Every promise is checked; the first that does not hold ends the demo."""

    quiet: bool
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    _chapter: str = ""

    def chapter(self, key: str, title: str) -> None:
        """Begin a chapter: facts told from now on belong to it."""
        self._chapter = key
        self.facts[key] = {}
        if not self.quiet:
            click.secho(f"\n{len(self.facts)}. {title}", bold=True)

    def tell(self, line: str) -> None:
        """Say a line to the person who watches."""
        if not self.quiet:
            click.echo("   " + printable(line).replace("\n", "\n   "))

    def fact(self, key: str, value: Any, text: str = "") -> None:
        """Note a fact, and say it."""
        self.facts[self._chapter][key] = value
        if text:
            self.tell(text)

    def promise(self, key: str, *, holds: bool, text: str) -> None:
        """Note that a promise holds, or end the demo.

        Raises:
            DemoFailedError: it does not.
        """
        self.facts[self._chapter][key] = holds
        if not holds:
            raise DemoFailedError(f"{self._chapter}: expected that {text}, which did not happen")
        if not self.quiet:
            click.secho(f"   ✓ {printable(text)}", fg="green")
