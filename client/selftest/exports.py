"""The directories that the throw-away node exports to guests, with everything in them that may lead out of them.

    exports/mine       for the attacker: files, links out of it, a pipe, a socket and a device
    exports/theirs     for the other tenant, with a canary
    exports/outside    for nobody, with a canary; where the links lead

Scratch is small, so that a guest which fills it is soon done.
"""

import json
import os
import secrets
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

MINE: Final[Mapping[str, str]] = {"mount": "/mine", "export": "mine", "mode": "ro"}
THEIRS: Final[Mapping[str, str]] = {"mount": "/theirs", "export": "theirs", "mode": "ro"}
ABSENT: Final[Mapping[str, str]] = {"mount": "/absent", "export": "absent", "mode": "rw"}
SCRATCH: Final[Mapping[str, str]] = {"mount": "/scratch", "export": "scratch", "mode": "rw"}
BRIEF: Final[Mapping[str, str]] = {"mount": "/brief", "export": "brief", "mode": "rw"}
SCRATCH_BYTES_MAX: Final = 65_536
SCRATCH_FILES_MAX: Final = 24
SCRATCH_DEPTH_MAX: Final = 4
HELLO: Final = "hello\n"
_LINKS: Final = {
    "link": "../outside/canary",
    "up": "../outside",
    "sub/up": "../../outside",
    "inside": "hello",
    "self": "/proc/self/root",
    "loop": "loop",
}
_DEVICE: Final = "device"
_MADE: Final = {"hello", "sub", "sub/deep", "pipe", "socket", *_LINKS}
_NULL_DEVICE: Final = (1, 3)


@dataclass(frozen=True, slots=True)
class Exports:
    """``canaries``: what lies in them where no attack may read, by place."""

    directory: Path = field(default_factory=Path)
    canaries: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def make(cls, directory: Path) -> "Exports":
        """Make everything below ``directory``."""
        canaries = {place: f"canary-export-{secrets.token_hex(16)}" for place in ("outside", "theirs")}
        mine = directory / "mine"
        mine.joinpath("sub").mkdir(parents=True)
        for place, text in canaries.items():
            directory.joinpath(place).mkdir()
            directory.joinpath(place, "canary").write_text(text, encoding="ascii")
        mine.joinpath("hello").write_text(HELLO, encoding="ascii")
        mine.joinpath("sub", "deep").write_text("deep", encoding="ascii")
        for name, target in _LINKS.items():
            mine.joinpath(name).symlink_to(target)
        os.mknod(mine / "pipe", stat.S_IFIFO | 0o600)
        os.mknod(mine / "socket", stat.S_IFSOCK | 0o600)
        with suppress(PermissionError):  # few may make one
            os.mknod(mine / _DEVICE, stat.S_IFCHR | 0o600, os.makedev(*_NULL_DEVICE))
        found = {"a file beside an export": canaries["outside"], "another tenant's export": canaries["theirs"]}
        return cls(directory, found)

    def settings(self, *, attacker: str, other: str) -> dict[str, str]:
        """Return the settings of a node that exports them to these tenants."""
        exports = {
            "mine": {"path": str(self.directory / "mine"), "tenants": [attacker]},
            "theirs": {"path": str(self.directory / "theirs"), "tenants": [other]},
            "scratch": {
                "scratch_bytes_max": SCRATCH_BYTES_MAX,
                "scratch_files_max": SCRATCH_FILES_MAX,
                "scratch_depth_max": SCRATCH_DEPTH_MAX,
            },
            "brief": {"lifetime": "invocation"},
        }
        return {"file_exports": json.dumps(exports), "scratch_free_bytes_min": "0"}

    def differences(self) -> list[str]:
        """Return what is not as it was made: in the attacker's export, and outside of it."""
        mine = self.directory / "mine"
        there = {str(each.relative_to(mine)) for each in mine.rglob("*")}
        found = [f"unexpected {name}" for name in sorted(there - _MADE - {_DEVICE})]
        hello = mine / "hello"
        if "hello" not in there or hello.read_text(encoding="ascii") != HELLO:
            found.append("hello has changed")
        found += [f"{name} is missing" for name in sorted(_MADE - there - {"hello"})]
        canary = self.directory / "outside" / "canary"
        if [each.name for each in canary.parent.iterdir()] != [canary.name]:
            found.append("the names outside have changed")
        elif canary.read_text(encoding="ascii") != self.canaries["a file beside an export"]:
            found.append("the file outside has changed")
        return found
