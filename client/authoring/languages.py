"""The languages that agents are written in: what each template's code is, and how it is told from the files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sandbox.images.javascript import SDK as JAVASCRIPT_SDK

SKELETONS: Final = Path(__file__).resolve().parent / "skeletons"
GO_SDK: Final = JAVASCRIPT_SDK.parent / "go" / "agentfactory"
C_SDK: Final = JAVASCRIPT_SDK.parent / "c"
ZIG_SDK: Final = JAVASCRIPT_SDK.parent / "zig"


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """One way to write an agent. ``main`` is the author's first file; ``needs_build`` says whether it runs as it is."""

    name: str
    title: str
    main: str
    code: dict[str, str]
    needs_build: bool = True


_COMPONENT: Final = {"module": "agent.wasm", "abi": "component"}
_COMMAND: Final = {"module": "agent.wasm", "abi": "command"}
LANGUAGES: Final = {
    one.name: one
    for one in (
        Language(
            name="python",
            title="Python",
            main="agent.py",
            code={"source": "agent.py", "image": "cpython"},
            needs_build=False,
        ),
        Language(name="python-module", title="Python, as a module", main="agent.py", code=_COMPONENT),
        Language(
            name="javascript",
            title="JavaScript",
            main="agent.js",
            code={"source": "agent.js", "image": "quickjs"},
            needs_build=False,
        ),
        Language(name="javascript-module", title="JavaScript, as a module", main="agent.js", code=_COMPONENT),
        Language(name="c", title="C", main="main.c", code=_COMMAND),
        Language(name="zig", title="Zig", main="main.zig", code=_COMMAND),
        Language(name="go", title="Go", main="main.go", code=_COMMAND),
    )
}
