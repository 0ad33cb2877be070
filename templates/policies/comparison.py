"""How proposed policies differ from those in force, policy by policy, as `templates.comparison` shows rights.

Whether one text permits more than another is not decided here in general. What is certain: a set in which every
forbidding policy of the old one still stands, and no permitting one was added or rewritten, permits nothing new.
Everything else counts as widened. Comments and white space do not count.
"""

from collections.abc import Iterator

from templates.comparison import Direction, Entry
from templates.policies.policy_set import Policy, PolicySet
from templates.problems import join

SUBJECT = "/policies"


def policy_entries(old: PolicySet, new: PolicySet) -> tuple[Entry, ...]:
    """Return one entry for each policy, by its name."""
    return tuple(_entries(old, new))


def _entries(old: PolicySet, new: PolicySet) -> Iterator[Entry]:
    before = {each.name: each for each in old.policies}
    after = {each.name: each for each in new.policies}
    for name in sorted(before.keys() | after.keys()):
        was, now = before.get(name), after.get(name)
        yield Entry(
            direction=_direction(was, now),
            subject=join(SUBJECT, name),
            old=was.text if was else "",
            new=now.text if now else "",
        )


def _direction(was: Policy | None, now: Policy | None) -> Direction:
    if was is None or now is None:
        only = was or now
        permits = only is not None and only.effect == "permit"
        return Direction.WIDENED if permits is (was is None) else Direction.NARROWED
    return Direction.SAME if was.text == now.text else Direction.WIDENED
