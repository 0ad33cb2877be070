"""What runs together by a verified generation: the ground on which `templates.reach` is asked."""

from collections.abc import Sequence

from templates.resolved import ResolvedTemplate
from templates.trusted_set import Accepted

_NO_NODE = ""
"""No node is called so: what the plan says for it is what it says for every node that it does not name."""


def fleets(accepted: Accepted) -> Sequence[Sequence[ResolvedTemplate]]:
    """Return what runs together, once for each set of nodes that run the same; at least one, possibly empty.

    Revoked versions, and those whose approval has run out, run nowhere.
    """
    named = {node for entry in accepted.plan.entries for node in entry.nodes or ()}
    views = dict.fromkeys(accepted.plan.for_node(node) for node in (_NO_NODE, *sorted(named)))
    known = accepted.verified
    return [
        [
            known[entry.template].resolved
            for entry in view
            if entry.template in known and known[entry.template].is_runnable
        ]
        for view in views
    ]
