"""Metadata that nobody signed: it is read before any signature is verified, so it must be refused, never crash."""

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from templates.bundle import Bundle
from templates.keys import KeyRefusedError, read_key
from templates.problems import InvalidDocumentError
from templates.reasons import AgentFactoryError, Reason
from templates.strict_json import DOCUMENT_BYTES_MAX, loads
from templates.trusted_set import accept, read_belief, renew_lease
from templates.trusted_set_errors import StateInvalidError
from tests.trust_forgery import forged
from tests.trust_world import NODE, NOW, pinned, ready_world

EMOJI = b'"\\ud83d\\ude00"'


def _edited(data: bytes, change: Callable[[Any], None]) -> bytes:
    value = json.loads(data)
    change(value)
    return json.dumps(value).encode()


@pytest.mark.parametrize("signature", [5, None, [], {}, True, 1.5, "", "zz", "A" * 100])
@pytest.mark.parametrize("file", ["timestamp.json", "1.snapshot.json", "1.targets.json", "1.plan.json"])
def test_a_signature_that_is_no_text_is_refused(file: str, signature: object) -> None:
    world = ready_world()
    bundle = world.publish().bundle()
    path = f"metadata/{file}"
    hostile = _edited(bundle.files[path], lambda value: value["signatures"][0].update(sig=signature))
    with pytest.raises(AgentFactoryError):
        accept(Bundle(files={**bundle.files, path: hostile}), belief=pinned(world), installation=NODE, now=NOW)


@pytest.mark.parametrize("signature", [5, None, []])
def test_a_newer_root_whose_signature_is_no_text_is_refused(signature: object) -> None:
    world = ready_world()
    bundle = world.publish().bundle()

    def newer(value: Any) -> None:
        value["signed"]["version"] = 2
        value["signatures"][0]["sig"] = signature

    hostile = _edited(bundle.files["metadata/1.root.json"], newer)
    with pytest.raises(AgentFactoryError):
        accept(
            Bundle(files={**bundle.files, "metadata/2.root.json": hostile}),
            belief=pinned(world),
            installation=NODE,
            now=NOW,
        )


@pytest.mark.parametrize("signature", [5, None, []])
def test_a_lease_whose_signature_is_no_text_is_refused(signature: object) -> None:
    world = ready_world()
    bundle = world.publish().bundle()
    accepted = accept(bundle, belief=pinned(world), installation=NODE, now=NOW)
    lease = _edited(bundle.files["metadata/timestamp.json"], lambda value: value["signatures"][0].update(sig=signature))
    with pytest.raises(AgentFactoryError):
        renew_lease(accepted, lease, installation=NODE, now=NOW)


def test_an_escaped_character_does_not_send_large_metadata_to_the_slow_reader(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """16 MiB through the reader that remembers places took most of a minute, and more than a gigabyte."""

    def slow(*_arguments: object, **_names: object) -> None:
        raise AssertionError("expected the fast reader for large input")

    monkeypatch.setattr("templates.strict_json.parse", slow)
    data = b"[" + EMOJI + b",1" * DOCUMENT_BYTES_MAX + b"]"
    value = loads(data, bytes_max=len(data), depth_max=4)
    assert isinstance(value, list)
    assert value[0] == "\U0001f600"


@pytest.mark.parametrize("text", [b'"\\ud800"', b'"\\ude00\\ud83d"', b'{"\\udfff":1}'])
@pytest.mark.parametrize("filler", [b"", b",1" * DOCUMENT_BYTES_MAX])
def test_lone_surrogates_are_refused_at_every_size(text: bytes, filler: bytes) -> None:
    data = b"[" + text + filler + b"]"
    with pytest.raises(InvalidDocumentError) as refusal:
        loads(data, bytes_max=len(data), depth_max=4)
    assert refusal.value.problems[0].code is Reason.INVALID_ENCODING


def test_a_key_of_an_algorithm_that_nobody_knows_is_refused() -> None:
    unknown = base64.b64encode(bytes.fromhex("300d300806062a0304050607030100")).decode()
    public = f"-----BEGIN PUBLIC KEY-----\n{unknown}\n-----END PUBLIC KEY-----\n"
    with pytest.raises(KeyRefusedError):
        read_key("0" * 64, {"keytype": "rsa", "scheme": "rsassa-pss-sha256", "keyval": {"public": public}})


@pytest.mark.parametrize("data", [b"", b"{}", b'{"a": 1}', b"[]", b'{"a":1,"a":1}', b"\xff"])
def test_a_belief_that_is_not_one_is_a_damaged_store(data: bytes) -> None:
    """The seal holds and the content does not: another version of this program wrote it."""
    with pytest.raises(StateInvalidError):
        read_belief(data)


def test_delegations_whose_names_are_no_text_are_refused() -> None:
    world = ready_world()
    bundle = world.publish().bundle()

    def change(signed: Any) -> None:
        role = signed.delegations.roles.pop("plan")
        role.name = True
        signed.delegations.roles[True] = role

    with pytest.raises(AgentFactoryError):
        accept(forged(bundle, "targets", change), belief=pinned(world), installation=NODE, now=NOW)
