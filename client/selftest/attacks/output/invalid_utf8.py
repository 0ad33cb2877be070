"""Output that is not UTF-8: overlong forms, surrogates, lone continuation bytes.

Source: CWE-176, RFC 3629. Expected: OUTPUT.
"""

from client.selftest.attack import Attack, Guest, fails
from client.selftest.guests import WRITE_HEXADECIMAL
from client.selftest.stage import Stage

_TEXTS = (
    b"text \x80 text",
    b"\xc0\xafetc\xc0\xafpasswd",
    b"\xed\xa0\x80",
    b"whole \xf0\x9f\x98",
    b"\xf8\x88\x80\x80\x80",
    b"\xff\xfe",
)


async def _run(stage: Stage) -> None:
    for text in _TEXTS:
        await stage.expect(fails("OUTPUT"), text=text.hex())


ATTACK = Attack(guests={"guest": Guest(wat=WRITE_HEXADECIMAL)}, run=_run)
