import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.identity import Identity, IdentityKind, InvalidIdentityError, only_identity

PART = st.from_regex(r"\A[a-z0-9]([a-z0-9._-]{0,20}[a-z0-9])?\Z")
DOMAIN = st.from_regex(r"\A[a-z0-9]([a-z0-9.-]{0,20}[a-z0-9])?\Z")
IDENTITIES = st.one_of(
    st.builds(Identity.service, DOMAIN, PART, PART),
    st.builds(Identity.node, DOMAIN, PART),
    st.builds(Identity.control_plane, DOMAIN, PART),
    st.builds(Identity.person, DOMAIN, PART),
)


@given(IDENTITIES)
def test_every_identity_survives_its_uri(identity: Identity) -> None:
    assert Identity.parse(identity.uri) == identity
    assert str(identity) == identity.uri


@given(st.text(max_size=80).map(lambda text: "spiffe://" + text))
def test_what_parses_is_written_back_as_it_was(uri: str) -> None:
    try:
        identity = Identity.parse(uri)
    except InvalidIdentityError:
        return
    assert identity.uri == uri


def test_the_four_forms() -> None:
    found = [
        Identity.parse(f"spiffe://factory.local/{path}")
        for path in ("tenant/acme/service/api", "node/n1", "control-plane/main", "person/alice")
    ]
    assert [(each.kind, each.tenant, each.name) for each in found] == [
        (IdentityKind.SERVICE, "acme", "api"),
        (IdentityKind.NODE, None, "n1"),
        (IdentityKind.CONTROL_PLANE, None, "main"),
        (IdentityKind.PERSON, None, "alice"),
    ]


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "spiffe://",
        "spiffe:///node/n1",
        "https://factory.local/node/n1",
        "SPIFFE://factory.local/node/n1",
        "spiffe://factory.local",
        "spiffe://factory.local/",
        "spiffe://factory.local/node/",
        "spiffe://factory.local/node/n1/",
        "spiffe://factory.local//node/n1",
        "spiffe://factory.local/node/n1/more",
        "spiffe://factory.local/node/..",
        "spiffe://factory.local/node/%6e1",
        "spiffe://factory.local/node/N1",
        "spiffe://factory.local/node/n1?x",
        "spiffe://factory.local/node/n1#x",
        "spiffe://factory.local/node/n1\n",
        "spiffe://factory.local/node/ñ",
        "spiffe://factory.local:443/node/n1",
        "spiffe://user@factory.local/node/n1",
        "spiffe://Factory.local/node/n1",
        "spiffe://factory.local/tenant/acme",
        "spiffe://factory.local/tenant/acme/service",
        "spiffe://factory.local/tenant//service/x",
        "spiffe://factory.local/tenant/acme/node/n1",
        "spiffe://factory.local/robot/r2",
        "spiffe://factory.local/node/" + "x" * 65,
        "spiffe://factory.local/node/" + "x" * 600,
        "spiffe://" + "x" * 129 + "/node/n1",
    ],
)
def test_other_forms_are_refused(uri: str) -> None:
    with pytest.raises(InvalidIdentityError):
        Identity.parse(uri)


@pytest.mark.parametrize("uris", [[], ["spiffe://a/node/n"] * 2, ["spiffe://a/node/n", "https://x/"]])
def test_not_exactly_one_uri_is_refused(uris: list[str]) -> None:
    with pytest.raises(InvalidIdentityError, match="exactly one"):
        only_identity(uris)


@pytest.mark.parametrize(
    ("kind", "tenant"), [(IdentityKind.SERVICE, None), (IdentityKind.NODE, "acme"), (IdentityKind.PERSON, "")]
)
def test_a_tenant_belongs_to_services_only(kind: IdentityKind, tenant: str | None) -> None:
    with pytest.raises(InvalidIdentityError):
        Identity(trust_domain="factory.local", kind=kind, name="x", tenant=tenant)
