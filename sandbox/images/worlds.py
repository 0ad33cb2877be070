"""A WIT world for one component: an image imports every interface, a module only those that its grants open.

componentize-py and componentize-qjs import all of the world that they are given, and a module may import only what its
template was granted.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

ALWAYS: Final = ("log", "context")
_INTERFACE: Final = re.compile(r"^interface ([a-z-]+) \{", re.MULTILINE)
_INTERNAL: Final = frozenset({"module-loader"})


@dataclass(frozen=True, slots=True)
class World:
    """The text of a WIT file and the interfaces of ours that its world imports."""

    text: str
    interfaces: tuple[str, ...]


def world_of(
    runtime_wit: str,
    *,
    name: str,
    includes: str | None = None,
    interfaces: Iterable[str] | None = None,
    more: Iterable[str] = (),
    also: str | None = None,
) -> World:
    """Describe the world ``name``, which stands in the package of ``runtime_wit``.

    Args:
        runtime_wit: the text of ``wit/runtime.wit``.
        name: of the world.
        includes: a world of that file to build on; without one the world exports ``process``.
        interfaces: those to import besides log and context; None for all there are. Those that do not exist are left
            out: `files` needs none.
        more: full names of other interfaces to import.
        also: a world whose exports come after all others.
    """
    known = [found for found in _INTERFACE.findall(runtime_wit) if found not in _INTERNAL]
    wanted = known if interfaces is None else [one for one in known if one in {*ALWAYS, *interfaces}]
    lines = [f"    include {includes};"] if includes else [f"    import {one};" for one in wanted]
    lines += [f"    import {one};" for one in more]
    if not includes:
        lines.append("    export process: func(input: string) -> result<string, string>;")
    if also:
        lines.append(f"    include {also};")
    body = "\n".join(lines)
    text = f"package agentfactory:runtime@0.1.0;\n\nworld {name} {{\n{body}\n}}\n"
    return World(text, tuple(wanted))
