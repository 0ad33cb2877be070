"""Which export a grant leads to, and whether it may be written to."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from data_plane.agents.agent import Agent
from data_plane.broker.answers import ErrorKind
from data_plane.broker.file_grant import (
    Directory,
    Export,
    Lifetime,
    Scratch,
    plan_mounts,
    refusal_kind,
    scratch_folders,
)
from data_plane.file_exports import FileExportSettings
from data_plane.settings import NodeSettings
from sandbox.file_protocol import Errno, FileRefusal, errno_of, pack_reply, read_reply
from sandbox.file_quota import Quota
from service.settings import InvalidSettingsError
from templates.grants import FileGrant
from templates.names import TemplateName

NOTES = TemplateName("docs", "notes")
QUOTA = Quota(bytes_max=1, files_max=1, depth_max=1)
EXPORTS: dict[str, Export] = {
    "corpus": Directory(tenants=("acme",), path="/srv/corpus"),
    "public": Directory(tenants=("*",), path="/srv/public"),
    "scratch": Scratch(tenants=("*",), lifetime=Lifetime.AGENT, quota=QUOTA),
}


def grant(export: str, mode: str, mount: str = "/data") -> FileGrant:
    return FileGrant(mount=mount, export=export, mode=mode)


@pytest.mark.parametrize(
    ("export", "mode", "tenant", "found", "writable"),
    [
        ("corpus", "ro", "acme", True, False),
        ("corpus", "rw", "acme", True, False),
        ("corpus", "ro", "rival", False, False),
        ("corpus", "ro", "", False, False),
        ("corpus", "ro", "acme2", False, False),
        ("public", "rw", "rival", True, False),
        ("scratch", "rw", "rival", True, True),
        ("scratch", "ro", "rival", True, False),
        ("absent", "rw", "acme", False, False),
    ],
)
def test_an_export_is_for_its_tenants_and_only_scratch_is_written(
    export: str, mode: str, tenant: str, *, found: bool, writable: bool
) -> None:
    (planned,) = plan_mounts([grant(export, mode)], EXPORTS, tenant=tenant)
    assert ((planned.export is not None), planned.writable) == (found, writable)


def test_a_foreign_export_and_an_absent_one_are_planned_alike() -> None:
    foreign, absent = plan_mounts([grant("corpus", "ro"), grant("none", "ro", "/e")], EXPORTS, tenant="rival")
    assert (foreign.export, foreign.writable) == (absent.export, absent.writable)


def test_every_grant_has_its_mount_and_none_has_another() -> None:
    grants = [grant("scratch", "rw", "/b"), grant("corpus", "ro", "/a"), grant("corpus", "ro", "/a/b")]
    assert [each.mount for each in plan_mounts(grants, EXPORTS, tenant="acme")] == ["/a", "/a/b", "/b"]
    assert plan_mounts([], EXPORTS, tenant="acme") == ()


def agent(agent_id: str, second: int = 0, tenant: str = "acme") -> Agent:
    created = datetime(2026, 1, 1, 0, 0, second, tzinfo=UTC)
    return Agent(tenant=tenant, agent_id=agent_id, template=NOTES, config=b"{}", created_at=created)


def test_no_two_owners_have_one_scratch_directory() -> None:
    other = TemplateName("docs", "other")
    owners = [
        scratch_folders(tenant="acme", template=NOTES, agent=None),
        scratch_folders(tenant="rival", template=NOTES, agent=None),
        scratch_folders(tenant="acme", template=other, agent=None),
        scratch_folders(tenant="acme", template=NOTES, agent=agent("one")),
        scratch_folders(tenant="acme", template=NOTES, agent=agent("one", second=1)),
        scratch_folders(tenant="acme", template=NOTES, agent=agent("two")),
    ]
    assert len(set(owners)) == len(owners)
    assert {len(each) for each in owners} == {4}


@pytest.mark.parametrize("tenant", ["", ".", "..", "a/b", "a\0b", ".hidden", "x" * 256])
def test_a_tenant_that_is_no_name_of_a_directory_gets_none(tenant: str) -> None:
    with pytest.raises(ValueError, match="expected names of directories"):
        scratch_folders(tenant=tenant, template=NOTES, agent=None)


@pytest.mark.parametrize(
    ("written", "complaint"),
    [
        ({"path": "/srv/corpus"}, "expected the tenants"),
        ({"path": "srv/corpus", "tenants": ["*"]}, "expected an absolute path"),
        ({"path": "/srv/corpus", "tenants": ["*"], "mode": "rw"}, "only scratch can be written to"),
        ({"path": "/srv/corpus", "tenants": ["*"], "scratch_bytes_max": 1}, "it is for scratch"),
        ({"mode": "ro"}, "expected a path"),
        ({"scratch_depth_max": 65}, "less than or equal to 64"),
        ({"bytes_max": 1}, "Extra inputs"),
    ],
)
def test_an_export_that_means_nothing_is_refused(written: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        FileExportSettings.model_validate(written)


@pytest.mark.parametrize("path", ["/var/node", "/var", "/", "/var/node/scratch", "/var/node/../node/blobs"])
def test_no_export_shows_the_nodes_own_store(path: str) -> None:
    environment = {
        "trust_domain": "t",
        "tls_certificate_file": "/c",
        "tls_key_file": "/k",
        "tls_authorities_file": "/a",
        "store_directory": "/var/node",
        "root_file": "/r",
        "file_exports": f'{{"all": {{"path": "{path}", "tenants": ["*"]}}}}',
    }
    variables = {NodeSettings.variable(name): value for name, value in environment.items()}
    with pytest.raises(InvalidSettingsError, match="neither hold nor lie in the store"):
        NodeSettings.load(variables)
    variables[NodeSettings.variable("store_directory")] = "/other"
    assert NodeSettings.load({**variables, NodeSettings.variable("file_exports"): "{}"}).file_exports == {}


def test_what_an_operator_writes_is_what_is_exported() -> None:
    corpus = FileExportSettings(path=Path("/srv/corpus"), tenants=("acme",)).to_export()
    assert corpus == Directory(tenants=("acme",), path="/srv/corpus")
    brief = FileExportSettings(lifetime=Lifetime.INVOCATION, scratch_bytes_max=5).to_export()
    assert isinstance(brief, Scratch)
    assert (brief.tenants, brief.lifetime, brief.quota.bytes_max) == (("*",), Lifetime.INVOCATION, 5)


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (pack_reply(Errno.SUCCESS, b"bytes of a file"), None),
        (pack_reply(Errno.ACCES), ErrorKind.DENIED),
        (pack_reply(Errno.ROFS), ErrorKind.DENIED),
        (pack_reply(Errno.DQUOT), ErrorKind.QUOTA),
        (pack_reply(Errno.EXIST), ErrorKind.CONFLICT),
        (pack_reply(Errno.NOENT), ErrorKind.NOT_FOUND),
        (pack_reply(Errno.ISDIR), ErrorKind.INVALID),
        (b"", ErrorKind.FAILED),
        (b"\xff\xff", ErrorKind.FAILED),
    ],
)
def test_a_reply_is_counted_as_what_it_refuses(reply: bytes, kind: ErrorKind | None) -> None:
    assert refusal_kind(errno_of(reply)) is kind
    if kind is not None:
        with pytest.raises(FileRefusal):
            read_reply(reply)
