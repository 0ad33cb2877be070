"""Our client workflow and python-tuf's own client, on the same repositories.

What we build they accept, and what they refuse we refuse. What only we refuse is listed here, with the rule of ADR 4.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tuf.api.exceptions import DownloadError, DownloadHTTPError, RepositoryError
from tuf.ngclient.fetcher import FetcherInterface
from tuf.ngclient.updater import Updater

from templates.bundle import Bundle
from templates.charter import Domain
from templates.reasons import AgentFactoryError
from templates.repository import RoleKeys, renew_lease
from templates.revocations import Revocations
from templates.trusted_set import Belief
from tests.trust_forgery import HOUR, forged
from tests.trust_refusals import REFUSALS
from tests.trust_world import (
    NOW,
    VALIDITY,
    World,
    approval,
    believe,
    online,
    pinned,
    ready_world,
    role_keys,
    root,
    signer,
    targets,
    template,
)


class DictFetcher(FetcherInterface):
    """Serves an HTTP repository from memory."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = files

    def _fetch(self, url: str) -> Iterator[bytes]:
        data = self._files.get(url.removeprefix("mem://"))
        if data is None:
            raise DownloadHTTPError(f"no {url}", 404)
        return iter([data])


def served(bundle: Bundle) -> dict[str, bytes]:
    """Lay a bundle out as a repository would: every target under the hash that its role lists."""
    files = {f"metadata/{name}": data for name, data in bundle.metadata.items()}
    for data in bundle.metadata.values():
        for path, info in _listed(data).items():
            if path in bundle.targets:
                folder, slash, name = path.rpartition("/")
                files[f"targets/{folder}{slash}{next(iter(info['hashes'].values()))}.{name}"] = bundle.targets[path]
    return files


def _listed(metadata: bytes) -> dict[str, dict[str, dict[str, str]]]:
    try:
        listed: dict[str, dict[str, dict[str, str]]] = json.loads(metadata)["signed"].get("targets", {})
    except (ValueError, KeyError, AttributeError):
        return {}
    return listed


class TheirNode:
    """A node that runs `tuf.ngclient.Updater`, with its clock set."""

    def __init__(self, directory: Path, pinned_root: bytes) -> None:
        self._directory = directory
        self._root = pinned_root

    def accept(self, bundle: Bundle, *, now: datetime) -> None:
        """Update everything: all roles, and every target in the bundle."""
        updater = Updater(
            metadata_dir=str(self._directory / "metadata"),
            metadata_base_url="mem://metadata/",
            target_dir=str(self._directory / "targets"),
            target_base_url="mem://targets/",
            fetcher=DictFetcher(served(bundle)),
            bootstrap=self._root,
        )
        updater._trusted_set.reference_time = now
        updater.refresh()
        for path in sorted({"charter.json", "plan.json", *bundle.targets}):
            info = updater.get_targetinfo(path)
            if info is None:
                raise RepositoryError(f"no role lists {path}")
            updater.download_target(info)


@pytest.fixture
def their_node(tmp_path: Path) -> TheirNode:
    return _their_node(tmp_path, root())


def _their_node(directory: Path, pinned_root: bytes) -> TheirNode:
    for name in ("metadata", "targets"):
        (directory / name).mkdir()
    return TheirNode(directory, pinned_root)


def test_what_we_build_they_accept(their_node: TheirNode) -> None:
    generation = ready_world().publish()
    assert generation.http_layout().items() >= served(generation.bundle()).items()
    their_node.accept(generation.bundle(), now=NOW)


STRICTER = {
    # strict JSON before anything is verified
    "a timestamp with a duplicate key": "T3",
    "a library with a duplicate key": "T8",
    "a root with a duplicate key": "T1",
    "a timestamp with unsigned fields": "T3",
    # what only our documents and delegations say
    "a root of another environment": "T2",
    "a development root": "T2",
    "a root in no mode": "T2",
    "a charter of another version": "T6",
    "a charter of another environment": "T6",
    "a development charter under a production root": "T6",
    "a charter that contradicts itself": "T6",
    "a plan.json of another environment": "T9",
    "a plan.json that is none": "T9",
    # keys stay on their side
    "a root with its own key online": "T2",
    "a reviewer whose key is the plan's": "T6",
    "a reviewer whose key is the timestamp's": "T6",
    # one role names another by length and SHA-256, always
    "a timestamp that names no hash": "T4",
    "a timestamp that names no length": "T4",
    "a plan without a hash in the snapshot": "T8",
    "a charter without SHA-256": "T6",
    # leases
    "a lease longer than the charter allows": "T7",
    "a lease from the future": "T7",
    "a lease that does not say when it was signed": "T7",
    "a lease signed at no time": "T7",
    # every role and every template is verified, wanted or not
    "a library that delegates further": "T8",
    "a template that is not in the bundle": "T10",
    "an approval that is not in the bundle": "T10",
    "code that the library does not list": "T10",
    "code that the library lists with another length": "T10",
    "an image's code that its library does not list": "T10",
    "a template of a domain without a charter": "T10",
    # nothing may be left over
    "stray metadata": "T11",
    "a root out of line": "T11",
}
"""Offers that ngclient takes and we do not, with the step that refuses them."""


@pytest.mark.parametrize("name", REFUSALS)
def test_what_they_refuse_we_refuse_and_what_only_we_refuse_is_listed(name: str, their_node: TheirNode) -> None:
    _, build = REFUSALS[name]
    bundle, belief = build()
    with pytest.raises(AgentFactoryError):
        believe(bundle, belief)
    try:
        their_node.accept(bundle, now=NOW)
    except (RepositoryError, DownloadError, ValueError):
        assert name not in STRICTER
    else:
        assert name in STRICTER


# Histories


def _new_template(world: World, step: int) -> None:
    changed = template(description=f"edit {step}")
    world.add(changed, approval(changed, "alice", "bob"))


def _revoke_node(world: World, step: int) -> None:
    nodes = world.plan.revocations.nodes | {f"gone-{step}"}
    world.plan = replace(world.plan, revocations=Revocations(nodes=nodes))


def _empty_plan(world: World, _: int) -> None:
    world.plan = replace(world.plan, entries=())


def _new_charter(world: World, _: int) -> None:
    world.charter = replace(world.charter, version=world.charter.version + 1)
    world.targets = targets(
        world.charter, plan=RoleKeys(keys=(world.signers.plan.public_key,)), library=role_keys("library")
    )


def _add_domain(world: World, step: int) -> None:
    more = {**world.charter.domains, f"extra{step}": Domain(reviewers=frozenset({"alice"}), threshold=1)}
    world.charter = replace(world.charter, domains=more)
    _new_charter(world, step)


def _drop_domains(world: World, step: int) -> None:
    kept = {name: domain for name, domain in world.charter.domains.items() if not name.startswith("extra")}
    world.charter = replace(world.charter, domains=kept)
    _new_charter(world, step)


def _rotate_plan_key(world: World, step: int) -> None:
    world.signers = replace(world.signers, plan=signer(f"plan-{step % 3}"))
    _new_charter(world, step)


def _rotate_online_keys(world: World, step: int) -> None:
    snapshot, timestamp = f"snapshot-{step % 3}", f"timestamp-{step % 3}"
    version = len(world.roots) + 1
    world.roots.append(root(version=version, snapshot=role_keys(snapshot), timestamp=role_keys(timestamp)))
    world.signers = replace(world.signers, snapshot=signer(snapshot), timestamp=signer(timestamp))


def _nothing(_: World, __: int) -> None:
    """Only the lease is signed anew."""


STEPS: tuple[Callable[[World, int], None], ...] = (
    _new_template,
    _revoke_node,
    _empty_plan,
    _new_charter,
    _add_domain,
    _drop_domains,
    _rotate_plan_key,
    _rotate_online_keys,
    _nothing,
)


@settings(max_examples=40, deadline=None)
@given(steps=st.lists(st.sampled_from(STEPS), min_size=1, max_size=6))
def test_both_accept_every_honest_history(steps: list[Callable[[World, int], None]]) -> None:
    world = ready_world()
    belief = pinned(world)
    with TemporaryDirectory() as directory:
        theirs = _their_node(Path(directory), world.roots[0])
        for number, step in enumerate([_nothing, *steps]):
            step(world, number)
            now = NOW + number * HOUR
            bundle = world.publish(now=now).bundle()
            belief = believe(bundle, belief, now=now).belief
            theirs.accept(bundle, now=now)


@settings(max_examples=40, deadline=None)
@given(
    steps=st.lists(st.sampled_from(STEPS), min_size=1, max_size=4),
    shown=st.lists(st.integers(0, 4), min_size=2, max_size=4),
)
def test_whatever_old_generation_is_shown_again_we_accept_no_more_than_they_do(
    steps: list[Callable[[World, int], None]], shown: list[int]
) -> None:
    world = ready_world()
    pin = world.roots[0]
    offers = []
    for number, step in enumerate([_nothing, *steps]):
        step(world, number)
        offers.append(world.publish(now=NOW).bundle())
    belief = Belief(root=pin)
    with TemporaryDirectory() as directory:
        theirs = _their_node(Path(directory), pin)
        for index in shown:
            bundle = offers[index % len(offers)]
            try:
                believed = believe(bundle, belief)
            except AgentFactoryError:
                continue  # an honest node is not updated; theirs would have persisted parts of it
            theirs.accept(bundle, now=NOW)
            belief = believed.belief


def test_they_persist_a_generation_whose_plan_was_wrongly_signed_and_we_do_not(their_node: TheirNode) -> None:
    """The reason why the workflow is ours (design section 5)."""
    world = ready_world()
    honest = world.publish().bundle()
    belief = believe(honest, pinned(world)).belief
    their_node.accept(honest, now=NOW)
    world.plan = replace(world.plan, entries=())
    wrong = forged(world.publish(now=NOW).bundle(), "plan", by=("mallory",))
    with pytest.raises(RepositoryError):
        their_node.accept(wrong, now=NOW)
    with pytest.raises(AgentFactoryError):
        believe(wrong, belief)
    assert believe(honest, belief).generation == 1
    with pytest.raises((RepositoryError, DownloadError)):
        their_node.accept(honest, now=NOW)


def test_both_take_a_renewed_lease(their_node: TheirNode) -> None:
    world = ready_world()
    generation = world.publish()
    bundle = generation.bundle()
    their_node.accept(bundle, now=NOW)
    later = NOW + timedelta(days=1)
    lease = renew_lease(generation.metadata, signer=signer("timestamp"), validity=VALIDITY, now=later)
    their_node.accept(bundle.with_timestamp(lease), now=later)
    believe(bundle.with_timestamp(lease), pinned(world), now=later)


def test_both_recover_from_a_fast_forward_attack_by_a_new_root(their_node: TheirNode) -> None:
    world = ready_world()

    def far(signed: object) -> None:
        signed.version = 2**31  # type: ignore[attr-defined]

    attacked = forged(forged(world.publish().bundle(), "snapshot", far), "timestamp", far)
    belief = believe(attacked, pinned(world)).belief
    their_node.accept(attacked, now=NOW)
    world.roots.append(root(version=2, snapshot=role_keys("snapshot-2"), timestamp=role_keys("timestamp-2")))
    world.signers = online(snapshot=signer("snapshot-2"), timestamp=signer("timestamp-2"))
    recovered = world.publish(now=NOW).bundle()
    assert believe(recovered, belief).generation < 2**31
    their_node.accept(recovered, now=NOW)
