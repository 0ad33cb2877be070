"""XML entities that expand to a billion pieces of text.

Source: CWE-776. Expected: an error of the agent, MEMORY or FUEL.
"""

from client.selftest.attack import Guest, fails, once

_SOURCE = """
import xml.etree.ElementTree as tree

def process(text):
    names = [f'<!ENTITY e{n} "{("&e%d;" % (n - 1)) * 10}">' for n in range(1, 10)]
    document = '<!DOCTYPE x [<!ENTITY e0 "ha">' + "".join(names) + "]><x>&e9;</x>"
    return str(len(tree.fromstring(document).text))
"""
ATTACK = once(Guest(python=_SOURCE), expect=fails("GUEST_ERROR", "MEMORY", "FUEL"))
