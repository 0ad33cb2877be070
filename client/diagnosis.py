"""What `agentctl doctor` looks at, in the order in which things depend on each other."""

import os
import shutil
import stat
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal

from client.local_fleet import CONTROL_PLANE
from client.local_run import IMAGES_DIRECTORY
from client.processes import http_status
from client.profile import PROFILE_FILE, Profile, ProfileError, read_profile

Severity = Literal["ok", "warning", "problem"]

DISK_FREE_BYTES_MIN: Final = 1 << 30
MAP_COUNT_MIN: Final = 65_530
OPEN_FILES_MIN: Final = 1_024


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing looked at, and what to do about it when it is not well."""

    severity: Severity
    subject: str
    text: str
    remedy: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def diagnose(directory: Path, *, now: datetime) -> Iterator[Finding]:
    """Yield what was found about this machine, the profile in ``directory`` and its servers."""
    yield from _machine(directory)
    try:
        profile = read_profile(directory)
    except ProfileError as error:
        damaged = (directory / PROFILE_FILE).exists()
        yield Finding(
            severity="problem",
            subject="profile",
            text=error.message,
            remedy="restore it from a backup, or make a new installation with another --dir"
            if damaged
            else f"agentctl --dir {directory} up",
        )
        return
    yield Finding(severity="ok", subject="profile", text=str(profile.directory))
    yield from _secrets(profile)
    yield from _certificates(profile, now)
    yield from _servers(profile)


def _machine(directory: Path) -> Iterator[Finding]:
    version = ".".join(str(part) for part in sys.version_info[:3])
    yield Finding(severity="ok", subject="python", text=version)
    try:
        from sandbox.engine import fingerprint

        yield Finding(severity="ok", subject="engine", text=fingerprint())
    except Exception as error:  # noqa: BLE001  (a broken installation fails in any way; saying so is the purpose)
        yield Finding(
            severity="problem",
            subject="engine",
            text=f"wasmtime cannot be used: {error}",
            remedy="install what requirements/runtime.txt pins (make demo does)",
        )
    yield from _kernel()
    yield _isolation()
    image = IMAGES_DIRECTORY / "cpython.wasm"
    yield (
        Finding(severity="ok", subject="images", text=f"{image.name} is built")
        if image.exists()
        else Finding(severity="warning", subject="images", text="the CPython image is not built", remedy="make images")
    )
    place = next(one for one in (directory, *directory.absolute().parents) if one.exists())
    free = shutil.disk_usage(place).free
    yield Finding(
        severity="ok" if free >= DISK_FREE_BYTES_MIN else "problem",
        subject="disk",
        text=f"{free / 1e9:.1f} GB free at {place}",
        remedy="" if free >= DISK_FREE_BYTES_MIN else "free at least 1 GB: nodes keep modules, compiled code and state",
    )


def _kernel() -> Iterator[Finding]:
    if not sys.platform.startswith("linux"):
        yield Finding(
            severity="problem", subject="kernel", text=f"{sys.platform} is not supported", remedy="run nodes on Linux"
        )
        return
    count = int(Path("/proc/sys/vm/max_map_count").read_text())
    yield Finding(
        severity="ok" if count >= MAP_COUNT_MIN else "warning",
        subject="vm.max_map_count",
        text=str(count),
        remedy="" if count >= MAP_COUNT_MIN else f"sysctl vm.max_map_count={MAP_COUNT_MIN}",
    )
    files = os.sysconf("SC_OPEN_MAX")
    yield Finding(
        severity="ok" if files >= OPEN_FILES_MIN else "warning",
        subject="open files",
        text=str(files),
        remedy="" if files >= OPEN_FILES_MIN else f"ulimit -n {OPEN_FILES_MIN}",
    )


def _isolation() -> Finding:
    """Lock a sandbox process away as a node would on this host, under this user."""
    import asyncio

    from sandbox.jail_probe import probe, remedy
    from sandbox.process import LEVELS, ProcessError

    try:
        reached = asyncio.run(probe())
    except (OSError, ProcessError) as error:
        return Finding(severity="problem", subject="isolation", text=str(error), remedy="see docs/isolation.md")
    if not reached.missing:
        return Finding(severity="ok", subject="isolation", text=f"workers reach level {reached.level}")
    return Finding(
        severity="problem" if reached.level == LEVELS[0] else "warning",
        subject="isolation",
        text=f"workers reach level {reached.level}, without {'; '.join(reached.missing)}",
        remedy=f"{remedy(reached.missing)} (docs/isolation.md)",
    )


def _secrets(profile: Profile) -> Iterator[Finding]:
    exposed = [
        path
        for path in profile.directory.rglob("*")
        if (path.name in {"key.pem", "ca.key", "passphrase"} or path.parent.name in {"keys", "offline"})
        or path in profile.signing_keys.values()
        if path.is_file() and stat.S_IMODE(path.stat().st_mode) & 0o077
    ]
    for path in exposed:
        yield Finding(
            severity="problem", subject="secrets", text=f"{path} is open to other users", remedy=f"chmod 600 {path}"
        )
    if not exposed:
        yield Finding(severity="ok", subject="secrets", text="keys and passphrases are readable by their owner only")
    together = [name for name in ("offline", "ca") if (profile.directory / name).exists()]
    if together:
        yield Finding(
            severity="warning",
            subject="offline keys",
            text=f"{', '.join(together)} lie beside the servers' files",
            remedy="fine for development; otherwise move them to a machine that is not online",
        )


def _certificates(profile: Profile, now: datetime) -> Iterator[Finding]:
    from client.renewal import RENEW_BEFORE, ends

    renewal = (
        f"agentctl --dir {profile.directory} up renews it when it starts"
        if (profile.directory / "ca").exists()
        else "let the keeper of the certificate authority issue it again"
    )
    for name, directory in sorted(profile.identities.items()):
        subject = f"certificate {name}"
        try:
            end = ends(directory)
        except (OSError, ValueError) as error:
            yield Finding(
                severity="problem", subject=subject, text=str(error), remedy=f"restore {directory} from a backup"
            )
            continue
        if end <= now:
            yield Finding(severity="problem", subject=subject, text=f"expired {end:%Y-%m-%d}", remedy=renewal)
        elif end - now < RENEW_BEFORE:
            yield Finding(severity="warning", subject=subject, text=f"expires {end:%Y-%m-%d}", remedy=renewal)


def _servers(profile: Profile) -> Iterator[Finding]:
    stopped: set[str] = set()
    for name, address in profile.observation.items():
        status = http_status(address, "/readyz")
        if status == 200:
            yield Finding(severity="ok", subject=name, text="ready")
        elif status:
            yield Finding(
                severity="problem",
                subject=name,
                text=f"runs, but is not ready (/readyz says {status})",
                remedy=f"agentctl --dir {profile.directory} node status; log in {profile.directory / 'logs'}",
            )
        else:
            yield Finding(
                severity="problem", subject=name, text="does not run", remedy=f"agentctl --dir {profile.directory} up"
            )
            stopped.add(name)
    if CONTROL_PLANE not in stopped:  # else nobody answers, and asking would take its time
        yield from _trust(profile)


def _trust(profile: Profile) -> Iterator[Finding]:
    import grpc
    from agentfactory.admin.v1 import admin_pb2 as pb
    from agentfactory.admin.v1.admin_pb2_grpc import KeyServiceStub

    from service.client_interceptors import RetryPolicy, intercept_channel
    from service.status import RemoteError
    from service.tls import channel_credentials
    from templates.reasons import AgentFactoryError

    try:
        channel = grpc.secure_channel(profile.control_plane, channel_credentials(profile.tls(profile.person)))
    except AgentFactoryError as error:
        yield Finding(severity="problem", subject="identity", text=error.message)
        return
    try:
        stub = KeyServiceStub(intercept_channel(channel, RetryPolicy()))
        response = stub.ListRoles(pb.ListRolesRequest(), timeout=5.0)
    except RemoteError as error:
        yield Finding(severity="warning", subject="roles", text=f"not asked: {error.message}")
        return
    finally:
        channel.close()
    for line in response.warnings:
        yield Finding(severity="warning", subject="roles", text=line, remedy="agentctl key list")
    if not response.warnings:
        yield Finding(severity="ok", subject="roles", text="no role expires soon")
