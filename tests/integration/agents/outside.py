"""Asks everything that the grants of its template open; what it returns is compared in test_sdk_outside.py."""

import json
from collections.abc import Callable

from agentfactory_sdk import HostError, http, kv, llm


def kind_of(call: Callable[[], object]) -> str:
    try:
        call()
    except HostError as error:
        return error.kind
    return "done"


def process(text: str) -> dict[str, object]:
    body = json.dumps({"about": text}, separators=(",", ":"))
    posted = http.post("api", http.path("v1", "works"), query={"about": text}, body=body)
    complete = llm.complete("default", f"about {text}")
    with llm.stream("default", [llm.user("one two three")]) as stream:
        pieces = [*stream]
    kv.put("kept", text, ttl_s=60)
    kept = kv.get("kept")
    return {
        "posted": posted.json(),
        "missing": http.get("api", "/v1/missing").status,
        "complete": complete.text,
        "tokens": complete.usage.output_tokens,
        "pieces": len(pieces) > 0 and "".join(pieces) == stream.answer.text,
        "stream": stream.answer.text,
        "finish": stream.answer.finish_reason,
        "refused": kind_of(lambda: llm.complete("default", "x", model="forbidden")),
        "denied": kind_of(lambda: http.get("api", "/v2")),
        "kept": kept.value if kept else None,
        "conflict": kind_of(lambda: kv.put("kept", "x", expected=kv.MUST_NOT_EXIST, ttl_s=1)),
    }
