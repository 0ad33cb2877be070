"""A template that names an export which only another tenant may use, and one that this node does not have.

Source: CWE-862. Expected: both refuse every use in the same way; the other tenant reads its own.
"""

from client.selftest.attack import Attack
from client.selftest.exports import ABSENT, THEIRS
from client.selftest.file_attempts import prober, tried
from client.selftest.stage import OTHER, Stage

_ATTEMPTS = (
    "open('{}/canary').read()",
    "os.listdir('{}')",
    "os.stat('{}/canary')",
    "os.stat('{}/nothing')",
    "open('{}/../theirs/canary')",
    "open('{}/new', 'w')",
    "os.mkdir('{}/new')",
    "os.unlink('{}/canary')",
)


async def _run(stage: Stage) -> None:
    (length,) = await tried(stage, ["len(open('/theirs/canary').read())"], tenant=OTHER)
    stage.require(length.startswith("= "), f"expected the tenant to read its own export, got {length}")
    theirs, absent = [
        await tried(stage, [each.format(mount) for each in _ATTEMPTS]) for mount in ("/theirs", "/absent")
    ]
    stage.require(set(theirs) == {"EACCES"}, f"expected EACCES of everything, got {theirs}")
    stage.require(theirs == absent, f"expected no difference to an export that is not there, got {theirs} and {absent}")


ATTACK = Attack(guests={"guest": prober(THEIRS, ABSENT)}, run=_run)
