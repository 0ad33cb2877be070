"""Headers that end others, belong to the connection, or say where the request goes.

Source: CWE-444, CWE-113. Expected: denied or invalid; nothing is sent.
"""

from client.selftest.attack import Attack
from client.selftest.requests import FREE, requester, require_refused
from client.selftest.stage import Stage

_HEADERS = (
    {"Host": "169.254.169.254"}, {"Content-Length": "0"}, {"Transfer-Encoding": "chunked"}, {"Connection": "upgrade"},
    {"Upgrade": "h2c"}, {"accept": "a\r\nX-Smuggled: yes"}, {"accept\r\nX-Smuggled": "yes"}, {"x-forwarded-for": "::1"},
    {"Proxy-Authorization": "Basic eA=="}, {"accept": "\0"}, {"": "x"}, {"accept ": "x"}, {"cookie": "a=b"},
    {"Metadata-Flavor": "Google"}, {"accept": "\u010d\u010a"},
)  # fmt: skip


async def _run(stage: Stage) -> None:
    for headers in _HEADERS:
        await require_refused(stage, "/free/plain", ["denied", "invalid"], headers=headers)


ATTACK = Attack(guests={"guest": requester(FREE)}, run=_run)
