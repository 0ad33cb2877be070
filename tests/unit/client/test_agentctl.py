"""The command line: light to import, exact about places, exit codes that scripts can rely on."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

GOOD = {
    "schema": 1,
    "domain": "dev",
    "name": "hello",
    "version": "1.0.0",
    "role": "example",
    "description": "Says hello.",
    "code": {"source": "agent.py", "image": "cpython"},
}


def agentctl(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "client.agentctl.main", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys\n"
        "from client.agentctl.main import cli\n"
        "try:\n    cli.main(['--help'], standalone_mode=False)\nexcept SystemExit:\n    pass\n"
        "heavy = [m for m in ('grpc', 'tuf', 'wasmtime', 'cryptography', 'google.protobuf') if m in sys.modules]\n"
        "print('heavy:', heavy)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert "heavy: []" in done.stdout
    assert "template" in done.stdout


@pytest.mark.parametrize(
    "noun",
    ["agent", "change", "invocation", "key", "node", "rollout", "template", "up", "demo", "doctor", "init", "revoke"],
)
def test_every_noun_explains_itself(noun: str) -> None:
    done = agentctl(noun, "--help")
    assert done.returncode == 0
    assert "Usage:" in done.stdout


def test_validate_accepts_a_good_template(tmp_path: Path) -> None:
    file = tmp_path / "template.json"
    file.write_text(json.dumps(GOOD))
    done = agentctl("template", "validate", str(file))
    assert (done.returncode, done.stdout) == (0, "")
    assert "ok" in done.stderr


def test_validate_reports_every_problem_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "template.json"
    file.write_text('{\n  "schema": 1,\n  "name": "hello",\n  "name": "again",\n  "version": 7\n}\n')
    done = agentctl("template", "validate", str(file))
    assert done.returncode == 3
    lines = done.stdout.splitlines()
    assert any(line.startswith(f"{file}:4:") and "DUPLICATE_KEY" in line for line in lines)


def test_validate_reads_standard_input_and_prints_json() -> None:
    done = agentctl("-o", "json", "template", "validate", "-", stdin=json.dumps({**GOOD, "colour": "red"}))
    assert done.returncode == 3
    (problem,) = json.loads(done.stdout)
    assert problem["file"] == "<stdin>"
    assert problem["code"] == "UNKNOWN_FIELD"
    assert problem["line"] == 1
    assert problem["column"] > 1


def test_a_missing_file_is_a_usage_error() -> None:
    assert agentctl("template", "validate", "/does/not/exist").returncode == 2


def test_an_unknown_command_is_a_usage_error() -> None:
    assert agentctl("frobnicate").returncode == 2


def test_imports_a_document_of_the_earlier_system(tmp_path: Path) -> None:
    old = {
        "name": "documentaliste",
        "role": "documentalist",
        "domain": "documentation",
        "capabilities": ["summarise"],
        "tools": ["search"],
        "default_config": {"sentences": 3},
        "_signature": "abc",
        "_signed_at": "2020-01-01",
        "_version": "1.0.0",
    }
    out = tmp_path / "template.json"
    done = agentctl("template", "import", "-", "--out", str(out), stdin=json.dumps(old))
    assert done.returncode == 0, done.stderr
    assert "dropped: /_signature" in done.stderr
    assert "assumed" in done.stderr
    assert json.loads(out.read_text())["name"] == "documentaliste"
    assert agentctl("template", "validate", str(out)).returncode == 0


def test_without_a_profile_it_says_how_to_get_one(tmp_path: Path) -> None:
    done = agentctl("--dir", str(tmp_path), "node", "list")
    assert done.returncode == 2
    assert "INVALID_PROFILE" in done.stderr
    assert f"agentctl --dir {tmp_path} up" in done.stderr


def test_doctor_finds_what_is_missing(tmp_path: Path) -> None:
    done = agentctl("--dir", str(tmp_path), "-o", "json", "doctor")
    assert done.returncode == 1
    findings = {one["subject"]: one for one in json.loads(done.stdout)}
    assert findings["profile"]["severity"] == "problem"
    assert findings["engine"]["severity"] == "ok"
    assert findings["profile"]["remedy"]


@pytest.mark.parametrize("amount", ["fuel=9223372036854775808", "wall_ms=2147483648", "tokens=" + "9" * 5000])
def test_an_amount_that_no_message_can_carry_is_a_usage_error(amount: str) -> None:
    done = agentctl("agent", "invoke", "dev/hello", "x", "--limit", amount)
    assert done.returncode == 2
    assert "of at most" in done.stderr


@pytest.mark.parametrize("arguments", [("change", "approve", "1"), ("revoke", "node", "n1", "--reason", "lost")])
def test_a_question_that_nobody_can_answer_is_a_usage_error(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    for stdin in ("<&-", "</dev/null", "<<< y"):
        command = [sys.executable, "-m", "client.agentctl.main", "--dir", str(tmp_path), *arguments]
        done = subprocess.run(
            ["bash", "-c", f'"$@" {stdin}', "bash", *command], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 2, done.stderr
        assert "it needs a terminal or --yes" in done.stderr


def test_a_folder_that_cannot_be_made_is_a_usage_error() -> None:
    done = agentctl("template", "new", "counter", "--lang", "python", "--dir", "/proc/nope")
    assert done.returncode == 2
    assert "cannot write /proc/nope: No such file or directory" in done.stderr


def test_authorities_that_are_no_certificates_are_invalid(tmp_path: Path) -> None:
    (receipt := tmp_path / "receipt.json").write_text("{}")
    (trust := tmp_path / "trust.pem").write_text("no PEM")
    done = agentctl("receipt", "verify", str(receipt), "--trust", str(trust))
    assert done.returncode == 3
    assert f"expected certificates in PEM, got something else: {trust}" in done.stderr
