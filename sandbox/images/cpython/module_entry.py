"""An author's own module: their agent.py was started while the module was built; ``process`` runs in a copy of that.

The author's files are imported from memory under their own names, like those of a zip of sources, so that a traceback
shows them as the author wrote them. The build puts them into the folder ``author`` beside this file.
"""

import gc
import os
import random
from pathlib import Path

import archive  # type: ignore[import-not-found]  # beside this file, on the path while the module is built
import entry  # type: ignore[import-not-found]
from agentfactory_sdk import _host

_host.uninstall()  # there is no configuration and nobody to ask before an invocation
root = Path(__file__).parent / "author"
files = {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
entry.load_translation(archive.compiled(files))


class WitWorld(entry.WitWorld):  # type: ignore[misc]
    """What the worker calls: ``process``, once."""

    def process(self, text_in: str) -> str:
        """The author's answer as text."""
        random.seed(os.urandom(32))
        _host.install(entry.WitHost())
        return str(super().process(text_in))


gc.collect()
gc.freeze()
