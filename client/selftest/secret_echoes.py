"""Services that send a secret back: what must not be in the answer, and the proof that there was a secret."""

from client.selftest.hostile_service import HEADER
from client.selftest.requests import ask
from client.selftest.stage import Stage


async def echoed(stage: Stage, path: str) -> None:
    """Ask a service that echoes; it must have got the secret, and nothing of it may come back to the guest."""
    found = await ask(stage, path)
    stage.require(found["kind"] == "", f"expected an answer, got {str(found)[:300]}")
    sent = stage.service.received[-1].headers.get(HEADER.lower(), "")
    credential = sent.rpartition(" ")[2]
    stage.require(len(credential) > 20, "expected the service to get the secret, got none: then nothing is shown")
    text = str(found)
    forms = (credential, credential[::-1], credential.encode().hex(), credential.encode().hex().upper())
    stage.require(not any(form in text for form in forms), "expected a scrubbed answer, got the secret in it")
