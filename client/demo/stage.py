"""What every chapter of the demo works on: the fleet, the story, and the agents that exist by now."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from client.agent_factory import Agent, AgentFactory
from client.demo import actors
from client.demo.story import Story
from client.local_fleet import LocalFleet
from client.profile import Profile

REPOSITORY = Path(__file__).parent.parent.parent
CATALOG = REPOSITORY / "templates" / "catalog"
REVIEWERS = ("bob", "carol")


@dataclass(slots=True)
class Stage:
    """The demo's world."""

    story: Story
    fleet: LocalFleet
    scratch: Path
    agents: dict[tuple[str, str], Agent] = field(default_factory=dict)
    """(template name, node) → agent."""

    @property
    def profile(self) -> Profile:
        return self.fleet.profile

    @contextmanager
    def factory(self) -> Iterator[AgentFactory]:
        """The client library, as a service of tenant ``default``."""
        with AgentFactory.connect(profile=self.profile.directory) as factory:
            yield factory

    def publish(self, path: Path, *, approvers: tuple[str, ...]) -> int:
        """Submit a template and let ``approvers`` sign; return the generation in which it is active."""
        change = actors.publish(self.profile, path, author=self.profile.person)
        for reviewer in approvers:
            review, change = actors.approve(self.profile, change.name, reviewer=reviewer)
            del review
        return change.generation
