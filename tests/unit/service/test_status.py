import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from service.client_interceptors import RetryPolicy
from service.status import (
    DETAILS_KEY,
    STATUS,
    ExhaustedError,
    FieldViolation,
    RemoteError,
    UnavailableError,
    code_of,
    from_rpc_error,
    to_status,
    trailing_metadata,
)
from templates.problems import InvalidDocumentError, Problem
from templates.reasons import AgentFactoryError, Reason

CODES = {code.value[0]: code for code in grpc.StatusCode}


class RollbackError(AgentFactoryError):
    reason = Reason.GENERATION_ROLLBACK


def sent(error: AgentFactoryError) -> RemoteError:
    """What a client makes of ``error``."""
    status = to_status(error)
    return from_rpc_error(
        grpc.aio.AioRpcError(
            CODES[status.code],
            grpc.aio.Metadata(),
            grpc.aio.Metadata(*trailing_metadata(status)),
            details=status.message,
        )
    )


def transport(code: grpc.StatusCode, *metadata: tuple[str, bytes], details: str = "") -> RemoteError:
    return from_rpc_error(
        grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*metadata), details=details)
    )


def test_an_error_survives_the_wire() -> None:
    found = sent(RollbackError("expected generation > 7, got 6", metadata={"trusted": "7"}))
    assert (found.reason, found.reason_text) == (Reason.GENERATION_ROLLBACK, "GENERATION_ROLLBACK")
    assert (found.message, found.metadata) == ("expected generation > 7, got 6", {"trusted": "7"})
    assert (found.code, found.retry_s, found.violations) == (grpc.StatusCode.FAILED_PRECONDITION, None, ())


def test_a_delay_travels() -> None:
    assert sent(UnavailableError("soon", retry_s=2.5)).retry_s == 2.5
    assert sent(ExhaustedError("later", retry_s=0.05)).code is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_every_problem_of_a_document_travels() -> None:
    problems = [
        Problem(code=Reason.INVALID_NAME, message=f"wrong {n}", pointer=f"/grants/{n}", line=n, column=2)
        for n in range(1, 4)
    ]
    found = sent(InvalidDocumentError(problems))
    assert found.violations[0] == FieldViolation(
        field="/grants/1", description="line 1, column 2: wrong 1", code="INVALID_NAME"
    )
    assert len(found.violations) == 3
    assert sent(found).violations == found.violations, "a gateway passes on what it got"


def test_ten_thousand_problems_still_fit_into_metadata() -> None:
    problems = [Problem(code=Reason.INVALID_NAME, message="x" * 1000, pointer="/é" * 300) for _ in range(10_000)]
    status = to_status(InvalidDocumentError(problems))
    assert status.ByteSize() < 4096
    assert sent(InvalidDocumentError(problems)).metadata["problems"] == "10000"


@given(st.text(max_size=3000), st.dictionaries(st.text(max_size=100), st.text(max_size=1000), max_size=20))
def test_any_text_can_be_sent(message: str, metadata: dict[str, str]) -> None:
    status = to_status(RollbackError(message, metadata=metadata))
    assert status.ByteSize() < 6144
    assert len(status.message.encode()) <= 1024


def test_a_lone_surrogate_does_not_break_the_answer() -> None:
    assert sent(RollbackError("bad \ud800 text")).message == "bad ? text"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (grpc.StatusCode.UNAVAILABLE, Reason.UNAVAILABLE),
        (grpc.StatusCode.DEADLINE_EXCEEDED, Reason.DEADLINE_EXCEEDED),
        (grpc.StatusCode.CANCELLED, Reason.CANCELLED),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, Reason.MESSAGE_TOO_LARGE),
        (grpc.StatusCode.UNIMPLEMENTED, Reason.UNIMPLEMENTED),
        (grpc.StatusCode.UNKNOWN, Reason.INTERNAL),
    ],
)
def test_a_transport_without_details_has_a_reason_too(code: grpc.StatusCode, reason: Reason) -> None:
    found = transport(code)
    assert (found.code, found.reason, found.message) == (code, reason, code.name)


def test_garbage_details_and_foreign_details_are_ignored() -> None:
    assert transport(grpc.StatusCode.UNAVAILABLE, (DETAILS_KEY, b"\xff\xff")).reason is Reason.UNAVAILABLE
    foreign = status_pb2.Status(code=14)
    foreign.details.add().Pack(error_details_pb2.ErrorInfo(reason="X", domain="elsewhere"))
    found = transport(grpc.StatusCode.UNAVAILABLE, (DETAILS_KEY, foreign.SerializeToString()))
    assert found.reason is Reason.UNAVAILABLE


def test_a_reason_of_a_newer_server_is_kept_as_text() -> None:
    newer = status_pb2.Status(code=9, message="new")
    newer.details.add().Pack(error_details_pb2.ErrorInfo(reason="FROM_THE_FUTURE", domain="agentfactory"))
    found = transport(grpc.StatusCode.FAILED_PRECONDITION, (DETAILS_KEY, newer.SerializeToString()))
    assert (found.reason, found.reason_text) == (Reason.INTERNAL, "FROM_THE_FUTURE")


def test_a_broken_call_is_internal() -> None:
    assert from_rpc_error(grpc.RpcError()).reason is Reason.INTERNAL


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_has_a_status(reason: Reason) -> None:
    assert reason in STATUS
    assert code_of(reason) is not grpc.StatusCode.OK


METHOD = "/a.B/C"
POLICY = RetryPolicy(idempotent_methods=frozenset({METHOD}), attempts_max=4, backoff_first_s=0.1, backoff_max_s=0.3)


def remote(code: grpc.StatusCode, retry_s: float | None = None) -> RemoteError:
    return RemoteError("x", reason=Reason.UNAVAILABLE, code=code, retry_s=retry_s)


@pytest.mark.parametrize(
    ("method", "code", "retry_s", "attempt", "remaining_s", "pause_s"),
    [
        (METHOD, grpc.StatusCode.UNAVAILABLE, None, 1, 9, 0.1),
        (METHOD, grpc.StatusCode.UNAVAILABLE, None, 2, 9, 0.2),
        (METHOD, grpc.StatusCode.UNAVAILABLE, None, 3, 9, 0.3),
        (METHOD, grpc.StatusCode.UNAVAILABLE, None, 4, 9, None),
        (METHOD, grpc.StatusCode.UNAVAILABLE, 5, 1, 9, 5),
        (METHOD, grpc.StatusCode.UNAVAILABLE, 5, 1, 4, None),
        (METHOD, grpc.StatusCode.RESOURCE_EXHAUSTED, 1, 1, 9, 1),
        (METHOD, grpc.StatusCode.RESOURCE_EXHAUSTED, None, 1, 9, None),
        (METHOD, grpc.StatusCode.INTERNAL, 1, 1, 9, None),
        (METHOD, grpc.StatusCode.DEADLINE_EXCEEDED, 1, 1, 9, None),
        ("/a.B/Other", grpc.StatusCode.UNAVAILABLE, 1, 1, 9, None),
    ],
)
def test_what_is_sent_again(
    method: str, code: grpc.StatusCode, retry_s: float | None, attempt: int, remaining_s: float, pause_s: float | None
) -> None:
    found = POLICY.pause_s(method, remote(code, retry_s), attempt=attempt, remaining_s=remaining_s, jitter=1.0)
    assert found == (None if pause_s is None else pytest.approx(pause_s))


@given(st.integers(1, 3), st.floats(0, 1), st.floats(0, 10), st.floats(0, 20))
def test_a_pause_is_never_shorter_than_asked_nor_past_the_deadline(
    attempt: int, jitter: float, retry_s: float, remaining_s: float
) -> None:
    pause_s = POLICY.pause_s(
        METHOD,
        remote(grpc.StatusCode.UNAVAILABLE, retry_s),
        attempt=attempt,
        remaining_s=remaining_s,
        jitter=jitter,
    )
    assert pause_s is None or retry_s <= pause_s < remaining_s
