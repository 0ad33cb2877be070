"""A template, its code and its reviewer, revoked once, and offered again by a plan that does not say so any more.

Source: TUF, rollback of a revocation. Expected: revocations only grow; the template does not run again.
"""

from client.selftest.attack import Attack, BreachError
from client.selftest.forgeries import forge
from client.selftest.stage import Stage
from client.selftest.starts import answer_of, serving
from service.status import RemoteError
from templates.revocations import Revocations

_REASONS = {"APPROVAL_BY_REVOKED", "TEMPLATE_REVOKED", "CODE_REVOKED"}


async def _run(stage: Stage) -> None:
    for kind in ("templates", "modules", "reviewers"):
        small = forge(stage)
        template = small.template
        victim = {"templates": template.resolved.digest, "modules": template.sha256, "reviewers": "alice"}[kind]
        revoking = small.world.publish(revocations=Revocations(**{kind: frozenset({victim})}))
        await small.taken(revoking)
        again = small.world.publish(template, previous=revoking)
        found = await small.node.imported(again)
        stage.note(found.text)
        if found.status != 0:
            stage.require(found.reason in _REASONS, f"expected {' or '.join(_REASONS)}, got {found.reason}")
            continue
        async with serving(small.node) as node:  # the generation is believed, what it revoked once is withdrawn
            try:
                answer = await answer_of(node, "text")
            except RemoteError as error:
                stage.note(error.message)
                continue
        raise BreachError(f"expected no answer of what was revoked by its {kind}, got {answer!r}")


ATTACK = Attack(run=_run)
