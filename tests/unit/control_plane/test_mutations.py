"""One request id, one effect: asked twice, at once, by somebody else, for something else, and after a failure."""

import asyncio
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from agentfactory.admin.v1 import admin_pb2 as pb
from agentfactory.admin.v1 import admin_pb2_grpc
from google.protobuf.descriptor import MethodDescriptor

from control_plane.grpc_mutations import Mutations
from control_plane.mutation import Answered, Ask, Asked, RequestIdInvalidError, RequestIdReusedError, require_request_id
from tests.installation import LocalInstallation

NOW = datetime(2030, 1, 1, tzinfo=UTC)


@dataclass
class Caller:
    """What `service.peer` needs of a call."""

    pem: bytes

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        return {"ssl_tls_version": [b"TLSv1.3"], "x509_pem_cert": [self.pem]}


@dataclass
class Effects:
    """A store that remembers answers, and counts what was done."""

    answers: dict[tuple[str, str], Answered] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)
    open: asyncio.Event = field(default_factory=asyncio.Event)
    failing: bool = False

    def answer_to(self, asked: Asked) -> Answered | None:
        found = self.answers.get((asked.person, asked.request_id))
        if found is not None and found.asked != asked:
            raise RequestIdReusedError(asked.request_id, method=found.asked.method)
        return found

    async def work(self, ask: Ask[str]) -> str:
        await self.open.wait()
        if self.failing:
            raise ConnectionError("expected")
        if not ask.validate_only:
            self.done.append(ask.person)
            result = f"effect {len(self.done)}"
            self.answers[ask.person, ask.asked.request_id] = ask.answered(result, NOW)
            return result
        return "tried"


@pytest.fixture
def callers(installation: LocalInstallation) -> dict[str, Any]:
    return {name: Caller(installation.person(name).certificate.read_bytes()) for name in ("alice", "bob")}


def request(request_id: str, text: str = "hello", **members: Any) -> pb.CommentOnChangeRequest:
    return pb.CommentOnChangeRequest(name="changes/1", text=text, request_id=request_id, **members)


async def test_asking_again_gives_the_same_answer_and_no_second_effect(callers: dict[str, Any]) -> None:
    effects, number = Effects(), str(uuid.uuid4())
    effects.open.set()

    async def ask(person: str, sent: pb.CommentOnChangeRequest) -> str:
        made = await mutations.answer(
            sent, callers[person], pb.Change, respond=lambda text: pb.Change(name=text), work=effects.work
        )
        return made.name

    async with Mutations(effects) as mutations:
        first = await ask("alice", request(number))
        assert await ask("alice", request(number)) == first
        assert await ask("alice", request(number.upper())) == first, "a UUID has no case"
        assert await ask("bob", request(number)) == "effect 2", "ids are a person's own"
        assert await ask("alice", request("")) == "effect 3", "without an id nothing is the same"
        assert await ask("alice", request(str(uuid.uuid4()), validate_only=True)) == "tried"
        for other in (request(number, "other"), request(number, etag="1.1")):
            with pytest.raises(RequestIdReusedError):
                await ask("alice", other)
        for wrong in ("1", "request-1", str(uuid.uuid1()), "{" + number + "}", number + "\n"):
            with pytest.raises(RequestIdInvalidError):
                await ask("alice", request(wrong))
    assert effects.done == ["alice", "bob", "alice"]


async def test_many_at_once_share_one_effect_and_who_goes_away_stops_nothing(callers: dict[str, Any]) -> None:
    effects, number = Effects(), str(uuid.uuid4())

    def ask(sent: pb.CommentOnChangeRequest) -> "asyncio.Future[pb.Change]":
        return asyncio.ensure_future(
            mutations.answer(
                sent, callers["alice"], pb.Change, respond=lambda text: pb.Change(name=text), work=effects.work
            )
        )

    async with Mutations(effects) as mutations:
        calls = [ask(request(number)) for _ in range(20)]
        await asyncio.sleep(0)
        with pytest.raises(RequestIdReusedError):
            await ask(request(number, "other"))
        calls[0].cancel()
        await asyncio.sleep(0)
        effects.open.set()
        assert {made.name for made in await asyncio.gather(*calls[1:])} == {"effect 1"}
        assert calls[0].cancelled()
    assert effects.done == ["alice"]


async def test_leaving_waits_for_work_that_nobody_waits_for(callers: dict[str, Any]) -> None:
    effects = Effects()
    async with Mutations(effects) as mutations:
        sent = request(str(uuid.uuid4()))
        call = asyncio.ensure_future(
            mutations.answer(
                sent, callers["alice"], pb.Change, respond=lambda text: pb.Change(name=text), work=effects.work
            )
        )
        await asyncio.sleep(0)
        call.cancel()
        asyncio.get_running_loop().call_later(0.01, effects.open.set)
    assert effects.done == ["alice"]


async def test_a_failure_is_not_remembered(callers: dict[str, Any]) -> None:
    effects, sent = Effects(failing=True), request(str(uuid.uuid4()))
    effects.open.set()

    async def ask() -> pb.Change:
        return await mutations.answer(
            sent, callers["alice"], pb.Change, respond=lambda text: pb.Change(name=text), work=effects.work
        )

    async with Mutations(effects) as mutations:
        with pytest.raises(ConnectionError):
            await ask()
        effects.failing = False
        assert (await ask()).name == "effect 1"


async def test_work_that_forgets_its_answer_is_found(callers: dict[str, Any]) -> None:
    async def forget(_ask: Ask[str]) -> str:
        return await asyncio.sleep(0, "done")

    async with Mutations(Effects()) as mutations:
        with pytest.raises(RuntimeError, match="did not store its answer"):
            await mutations.answer(
                request(str(uuid.uuid4())), callers["alice"], pb.Change, respond=lambda _: pb.Change(), work=forget
            )


def test_request_ids_are_kept_in_one_spelling() -> None:
    text = str(uuid.uuid4())
    assert require_request_id(text.upper()) == text
    assert require_request_id("") == ""


def mutating_methods() -> list[MethodDescriptor]:
    reading = ("Get", "List", "Fetch")
    services = pb.DESCRIPTOR.services_by_name.values()
    return [each for service in services for each in service.methods if not each.name.startswith(reading)]


@pytest.mark.parametrize("method", mutating_methods(), ids=lambda method: method.full_name)
def test_every_request_that_changes_something_can_be_repeated_and_tried(method: MethodDescriptor) -> None:
    asked = method.input_type
    if method.client_streaming:  # what is asked is in its header
        header = asked.fields_by_name["header"].message_type
        assert header is not None
        asked = header
    assert {"request_id", "validate_only"} <= set(asked.fields_by_name)
    assert hasattr(admin_pb2_grpc, f"{method.containing_service.name}Servicer")
