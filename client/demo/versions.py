"""A new version, published under running invocations, and the way back."""

import threading
import time
from typing import Final, Self

from client.demo import actors, material
from client.demo.stage import REVIEWERS, Stage
from client.demo.work import CATALOGUE
from service.status import RemoteError

TEXT: Final = "# Notes\n\nThe node switches versions while it works. Nothing fails. Everything is counted.\n"
TEMPLATE: Final = "documentaliste"
_SETTLE_S: Final = 1.0


class Callers:
    """One thread for each node that invokes an agent without pause, and remembers versions and failures."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(node,)) for node in stage.profile.nodes]
        self.versions: dict[str, list[str]] = {node: [] for node in stage.profile.nodes}
        self.count = 0
        self.failures: list[str] = []

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _call(self, node: str) -> None:
        name = self._stage.agents[TEMPLATE, node].name
        seen = self.versions[node]
        with self._stage.factory() as factory:
            while not self._stopped.is_set():
                try:
                    answer = factory.invoke(name, TEXT)
                except RemoteError as error:
                    self.failures.append(f"{node}: {error.reason_text}: {error.message}")
                    continue
                self.count += 1
                version = answer.receipt.template.rpartition("@")[2]
                if not seen or seen[-1] != version:
                    seen.append(version)


def switch_versions(stage: Stage) -> None:
    """Publish a new version and roll it back, both under running invocations."""
    story = stage.story
    story.chapter("versions", "A new version under running invocations, and the way back")
    before = stage.agents[TEMPLATE, next(iter(stage.profile.nodes))].record.template_version
    major, minor, patch = before.split(".")
    after = f"{major}.{minor}.{int(patch) + 1}"
    edited = material.new_version(
        CATALOGUE[TEMPLATE], stage.scratch / "edited", version=after, source_note="edited while its agents were working"
    )
    with Callers(stage) as callers:
        time.sleep(_SETTLE_S)
        change = actors.publish(stage.profile, edited, author=stage.profile.person)
        started = time.monotonic()
        for reviewer in REVIEWERS:
            found, change = actors.approve(stage.profile, change.name, reviewer=reviewer)
            story.tell(f"what {reviewer} saw changing:\n{found.source_diff}")
        actors.wait_active(stage.profile, change.generation)
        took = time.monotonic() - started
        time.sleep(_SETTLE_S)
        back = actors.rollback(stage.profile, reason="the demo shows the way back")
        actors.wait_active(stage.profile, back.generation)
        time.sleep(_SETTLE_S)
    story.fact("approve_to_active_s", round(took, 3))
    story.fact("invocations", callers.count, f"{callers.count} invocations meanwhile, {len(callers.failures)} failed")
    story.fact("failures", callers.failures[:5])
    for node, seen in callers.versions.items():
        story.promise(
            f"{node}_switched_and_returned",
            holds=seen == [before, after, before],
            text=f"{node} ran {' → '.join(seen)}",
        )
    story.promise("none_failed", holds=not callers.failures, text="not one invocation failed")
