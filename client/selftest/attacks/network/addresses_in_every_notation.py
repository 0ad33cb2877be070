"""Origins that are addresses, in every notation that some resolver or library reads as one, and names that mislead.

Source: CWE-918, CWE-1389, RFC 3986 section 7.4. Expected: each is refused when the template is read, or denied.
"""

from client.selftest.attack import Attack
from client.selftest.origins import never_reached
from client.selftest.stage import Stage

_ORIGINS = (
    "https://2130706433", "https://0x7f000001", "https://017700000001", "https://127.1", "https://127.0.0.1",
    "https://0177.0.0.1", "https://0x7f.0.0.1", "https://[::1]", "https://[::ffff:127.0.0.1]", "https://[::ffff:7f00:1]",
    "https://[64:ff9b::7f00:1]", "https://[fe80::1%25eth0]", "https://[0:0:0:0:0:0:0:1]", "https://169.254.169.254",
    "https://[::]", "https://0", "https://0.0.0.0", "https://10.0.0.1", "https://100.64.0.1", "https://[fd00:ec2::254]",
    "https://user@example.com", "https://example.com@127.0.0.1", "https://example.com\\@127.0.0.1",
    "https://example.com#@127.0.0.1", "https://127.0.0.1.", "https://example.com.", "https://EXAMPLE.com",
    "https://\uff11\uff12\uff17.0.0.1", "https://ex\u0430mple.com", "https://example.com:443", "https://example.com:0",
    "https://example.com:65536", "https://example.com/path", "https://exa mple.com", "ftp://example.com",
    "https:/example.com", "https://", "file:///etc/passwd", "https://example.com\r\nHost: x", "https://xn--.com:",
)  # fmt: skip


async def _run(stage: Stage) -> None:
    for origin in _ORIGINS:
        await never_reached(stage, origin)


ATTACK = Attack(run=_run)
