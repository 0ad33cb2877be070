from pathlib import Path

import pytest
from pydantic import Field, SecretStr, ValidationError

from service.logs import LogLevel
from service.settings import InvalidSettingsError, ServerSettings, ServiceSettings, settings_table


class PlaneSettings(ServerSettings, env_prefix="AGENTFACTORY_CP_"):
    lease_s: float = Field(default=60.0, gt=0, description="How long a lease runs.")
    key_passphrase: SecretStr | None = Field(default=None, description="Opens the keys.")
    tenants: dict[str, list[str]] = Field(default_factory=dict, description="JSON.")
    verbose: bool = Field(default=False, description="More.")


ENOUGH = {
    "AGENTFACTORY_CP_TRUST_DOMAIN": "factory.local",
    "AGENTFACTORY_CP_TLS_CERTIFICATE_FILE": "/c.pem",
    "AGENTFACTORY_CP_TLS_KEY_FILE": "/k.pem",
    "AGENTFACTORY_CP_TLS_AUTHORITIES_FILE": "/a.pem",
}


def refused(**variables: str) -> str:
    with pytest.raises(InvalidSettingsError) as caught:
        PlaneSettings.load(ENOUGH | variables)
    return "\n".join(caught.value.lines)


def test_what_is_set_is_read_and_the_rest_has_defaults() -> None:
    settings = PlaneSettings.load(
        ENOUGH
        | {
            "AGENTFACTORY_CP_LISTEN_PORT": "7443",
            "AGENTFACTORY_CP_LOG_LEVEL": "debug",
            "AGENTFACTORY_CP_TENANTS": '{"acme": ["a/*"]}',
            "AGENTFACTORY_CP_VERBOSE": "true",
            "AGENTFACTORY_CP_KEY_PASSPHRASE": "sesame",
            "PATH": "/bin",
            "AGENTFACTORY_NODE_ANYTHING": "another process's",
            "AGENTFACTORY_PROFILE": "a client's",
        }
    )
    assert (settings.listen_port, settings.log_level, settings.lease_s) == (7443, LogLevel.DEBUG, 60.0)
    assert settings.tenants == {"acme": ["a/*"]}
    assert settings.verbose is True
    assert settings.tls_files.key == Path("/k.pem")
    assert "sesame" not in repr(settings)


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [
        ("AGENTFACTORY_CP_LISTEN_PROT", "AGENTFACTORY_CP_LISTEN_PORT"),
        ("AGENTFACTORY_CP_LEASE", "AGENTFACTORY_CP_LEASE_S"),
        ("agentfactory_cp_listen_port", "AGENTFACTORY_CP_LISTEN_PORT"),
        ("AGENTFACTORY_CPX_LISTEN_PORT", "AGENTFACTORY_CP_LISTEN_PORT"),
        ("AGENTFACTORY_CONTROL_LISTEN_PORT", "AGENTFACTORY_CP_LISTEN_PORT"),
    ],
)
def test_a_misspelled_variable_stops_the_process_and_names_the_nearest(variable: str, nearest: str) -> None:
    line = refused(**{variable: "7"})
    assert variable in line
    assert f"did you mean {nearest}?" in line


def test_a_stranger_without_a_neighbour_is_refused_too() -> None:
    assert refused(AGENTFACTORY_CP_ZZZZ="1") == "AGENTFACTORY_CP_ZZZZ: nothing reads it"


@pytest.mark.parametrize(
    ("variable", "value", "problem"),
    [
        ("AGENTFACTORY_CP_LISTEN_PORT", "sesame", "valid integer"),
        ("AGENTFACTORY_CP_LISTEN_PORT", "70000", "less than or equal to 65535"),
        ("AGENTFACTORY_CP_LEASE_S", "0", "greater than 0"),
        ("AGENTFACTORY_CP_LEASE_S", "nan", "greater than 0"),
        ("AGENTFACTORY_CP_LOG_LEVEL", "sesame", "'debug', 'info', 'warning' or 'error'"),
        ("AGENTFACTORY_CP_TENANTS", "{sesame", "expected JSON"),
        ("AGENTFACTORY_CP_TENANTS", '{"a": "sesame"}', "at a: Input should be a valid list"),
    ],
)
def test_a_wrong_value_is_explained_without_being_shown(variable: str, value: str, problem: str) -> None:
    line = refused(**{variable: value})
    assert line.startswith(variable)
    assert problem in line
    assert "sesame" not in line


def test_every_problem_is_reported_at_once() -> None:
    with pytest.raises(InvalidSettingsError) as caught:
        PlaneSettings.load({"AGENTFACTORY_CP_LISTEN_PORT": "x", "AGENTFACTORY_CP_TYPO_": "1"})
    assert len(caught.value.lines) == 6
    assert caught.value.metadata == {"problems": "6"}


def test_only_load_reads_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTFACTORY_CP_TRUST_DOMAIN", "from.the.environment")
    with pytest.raises(ValidationError):
        PlaneSettings()  # type: ignore[call-arg]


def test_settings_are_frozen() -> None:
    settings = PlaneSettings.load(ENOUGH)
    with pytest.raises(ValidationError):
        settings.lease_s = 1.0


def test_the_table_has_a_row_for_every_setting() -> None:
    class Small(ServiceSettings, env_prefix="AGENTFACTORY_NODE_"):
        path: Path = Field(description="Where.")
        level: LogLevel = Field(default=LogLevel.INFO, description="Which.")
        ratio: float = Field(default=0.5, ge=0, le=1, description="How much.")
        secret: SecretStr | None = Field(default=None, description="What.")

    assert settings_table(Small) == (
        "| Variable | Type | Default | Meaning |\n"
        "|---|---|---|---|\n"
        "| `AGENTFACTORY_NODE_PATH` | path | required | Where. |\n"
        "| `AGENTFACTORY_NODE_LEVEL` | `debug`, `info`, `warning`, `error` | `info` | Which. |\n"
        "| `AGENTFACTORY_NODE_RATIO` | number ≥ 0, ≤ 1 | `0.5` | How much. |\n"
        "| `AGENTFACTORY_NODE_SECRET` | secret | unset | What. |\n"
    )
