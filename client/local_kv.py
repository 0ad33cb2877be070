"""The host calls of one `agentctl template run`: `kv` in memory, `http` and `llm` by the broker's rules, own files."""

import json
import time
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from client.local_http import LocalHttp
    from client.local_llm import LocalLlm

from client.local_files import LocalFiles

LIST_MAX: Final = 1_000
KEY_BYTES_MAX: Final = 512
TTL_S_MAX: Final = 10 * 366 * 86_400


class LocalHost:
    """Carries out the host calls that the command line granted; refuses every other, as a node would."""

    def __init__(
        self,
        granted: frozenset[str],
        *,
        kv_bytes_max: int,
        files: LocalFiles | None = None,
        http: "LocalHttp | None" = None,
        llm: "LocalLlm | None" = None,
    ) -> None:
        self._granted = granted
        self._files = files
        self._http = http
        self._llm = llm
        self._kv_bytes_max = kv_bytes_max
        self._entries: dict[str, tuple[str, int]] = {}
        self._expires_s: dict[str, float] = {}

    async def call(self, interface: str, function: str, argument: bytes) -> bytes:
        """Answer one host call as the broker does."""
        if interface == "files" and self._files is not None:
            return await self._files.call(function, argument)
        if interface not in self._granted:
            return _error("denied", f"{interface} was not granted on the command line (--grant {interface})")
        outside = {"http": self._http, "llm": self._llm}.get(interface)
        if outside is not None:
            return await outside.call(function, argument)
        if interface != "kv":
            return _error("denied", f"{interface} needs a node: it is not carried out by a local run")
        try:
            return self._kv(function, json.loads(argument))
        except (KeyError, TypeError, ValueError) as error:
            return _error("invalid", f"expected the arguments of kv.{function}, got {error!r}")

    def _kv(self, function: str, given: dict[str, Any]) -> bytes:
        for name in [name for name, at_s in self._expires_s.items() if at_s <= time.monotonic()]:
            del self._expires_s[name]
            self._entries.pop(name, None)
        if function in {"get", "put", "delete"} and not _is_key(str(given["key"])):
            return _error("invalid", f"expected a key of 1 to {KEY_BYTES_MAX} bytes without NUL")
        ttl_s = given.get("ttl_s")
        if ttl_s is not None and not 0 < int(ttl_s) <= TTL_S_MAX:
            return _error("invalid", f"expected ttl_s from 1 to {TTL_S_MAX} seconds, got {ttl_s}")
        match function:
            case "list":
                return self._list(given)
            case "get":
                value, version = self._entries.get(str(given["key"]), ("", 0))
                return _ok({"value": value, "version": version} if version else None)
            case "put" | "delete":
                written = given["value"] if function == "put" else None
                return self._write(str(given["key"]), written, given.get("expected"), ttl_s)
        return _error("invalid", f"expected get, put, delete or list, got {function!r}")

    def _list(self, given: dict[str, Any]) -> bytes:
        names = sorted(name for name in self._entries if name.startswith(given.get("prefix", "")))
        start = given.get("cursor") or ""
        page = [name for name in names if name > start][: min(int(given.get("limit") or LIST_MAX), LIST_MAX)]
        more = bool(page) and page[-1] != names[-1]
        return _ok({"keys": page, "cursor": page[-1] if more else None})

    def _write(self, name: str, value: Any, expected: Any, ttl_s: Any) -> bytes:
        """Put ``value``; delete where there is none."""
        _, version = self._entries.get(name, ("", 0))
        if expected is not None and expected != version:
            return _error("conflict", f"expected version {expected} of {name!r}, got {version}")
        if value is None:
            self._entries.pop(name, None)
            self._expires_s.pop(name, None)
            return _ok({})
        kept = {**self._entries, name: (str(value), version + 1)}
        if sum(len(key.encode()) + len(entry[0].encode()) for key, entry in kept.items()) > self._kv_bytes_max:
            return _error("quota", f"expected at most {self._kv_bytes_max} bytes in the namespace")
        self._entries = kept
        self._expires_s[name] = float("inf") if ttl_s is None else time.monotonic() + int(ttl_s)
        return _ok({"version": version + 1})


def _is_key(text: str) -> bool:
    return 0 < len(text.encode()) <= KEY_BYTES_MAX and "\0" not in text


def _ok(value: Any) -> bytes:
    return json.dumps({"ok": value}, ensure_ascii=False).encode()


def _error(kind: str, message: str) -> bytes:
    return json.dumps({"error": {"kind": kind, "message": message}}, ensure_ascii=False).encode()
