"""Errors become lines and exit codes."""

import grpc
import pytest

from client.agentctl.exit_codes import ExitCode
from client.agentctl.failures import describe, exit_code_of
from client.profile import ProfileError
from service.status import RemoteError
from templates.problems import InvalidTemplateError, Problem
from templates.reasons import AgentFactoryError, Reason


def _error(reason: Reason) -> AgentFactoryError:
    error = AgentFactoryError("expected this, got that")
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        (Reason.INVALID_TEMPLATE, ExitCode.VALIDATION),
        (Reason.INPUT, ExitCode.VALIDATION),
        (Reason.MESSAGE_TOO_LARGE, ExitCode.VALIDATION),
        (Reason.INVALID_TLS_FILES, ExitCode.VALIDATION),
        (Reason.UNKNOWN_AGENT, ExitCode.NOT_FOUND),
        (Reason.PERMISSION_DENIED, ExitCode.NOT_ALLOWED),
        (Reason.UNAUTHENTICATED, ExitCode.NOT_ALLOWED),
        (Reason.UNAVAILABLE, ExitCode.UNAVAILABLE),
        (Reason.DEADLINE_EXCEEDED, ExitCode.UNAVAILABLE),
        (Reason.SIGNATURE_INVALID, ExitCode.TRUST),
        (Reason.APPROVAL_UNDER_THRESHOLD, ExitCode.TRUST),
        (Reason.GENERATION_ROLLBACK, ExitCode.TRUST),
        (Reason.REVIEW_MISMATCH, ExitCode.TRUST),
    ],
)
def test_exit_codes_follow_the_reason(reason: Reason, code: ExitCode) -> None:
    assert exit_code_of(_error(reason)) is code


def test_the_code_comes_first() -> None:
    assert describe(ProfileError("none there")) == ["INVALID_PROFILE: none there"]


def test_every_problem_of_a_document_is_told() -> None:
    problems = [
        Problem(code=Reason.UNKNOWN_FIELD, message="expected a known field, got 'a'", pointer="/a", line=2, column=3),
        Problem(code=Reason.WRONG_TYPE, message="expected a string, got 7", pointer="/b", line=3, column=3),
    ]
    lines = describe(InvalidTemplateError(problems))
    assert lines[0] == "INVALID_TEMPLATE: 2 problems"
    assert [line.strip().split(":")[0] for line in lines[1:]] == ["2", "3"]


@pytest.mark.parametrize(("reason", "lines"), [(Reason.FUEL, 2), (Reason.UNKNOWN_RECORDING, 1)])
def test_a_receipt_is_named_where_there_may_be_one(reason: Reason, lines: int) -> None:
    error = RemoteError("", reason=reason, code=grpc.StatusCode.NOT_FOUND, metadata={"invocation": "7"})
    assert len(describe(error)) == lines
