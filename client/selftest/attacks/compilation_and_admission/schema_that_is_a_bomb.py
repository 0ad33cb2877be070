"""Schemas that refer outside of themselves, to themselves without end, or are very deep.

Source: CWE-918, CWE-674. Expected: each is refused when the template is read.
"""

from client.selftest.attack import Attack
from client.selftest.compiling import not_admitted
from client.selftest.guests import ECHO
from client.selftest.stage import Stage


def _deep() -> dict[str, object]:
    schema: dict[str, object] = {"type": "string"}
    for _ in range(300):
        schema = {"properties": {"a": schema}}
    return schema


_SCHEMAS: tuple[dict[str, object], ...] = (
    {"$ref": "http://169.254.169.254/latest/meta-data"},
    {"$ref": "file:///etc/passwd"},
    {"type": "string", "pattern": "(?=a)" * 10},
    {"type": "string", "pattern": "a{1000}{1000}{1000}"},
    _deep(),
)


async def _run(stage: Stage) -> None:
    for schema in _SCHEMAS:
        reasons = ("INVALID_SCHEMA", "INVALID_TEMPLATE", "DOCUMENT_TOO_DEEP", "INVALID_DOCUMENT")
        await not_admitted(stage, ECHO, *reasons, document={"input_schema": schema})


ATTACK = Attack(run=_run)
