import pytest

from data_plane.settings import NodeSettings
from service.settings import InvalidSettingsError

REQUIRED = {
    "AGENTFACTORY_NODE_TRUST_DOMAIN": "factory.test",
    "AGENTFACTORY_NODE_TLS_CERTIFICATE_FILE": "cert.pem",
    "AGENTFACTORY_NODE_TLS_KEY_FILE": "key.pem",
    "AGENTFACTORY_NODE_TLS_AUTHORITIES_FILE": "ca.pem",
    "AGENTFACTORY_NODE_STORE_DIRECTORY": "store",
    "AGENTFACTORY_NODE_ROOT_FILE": "root.json",
}
PRIVATE = "AGENTFACTORY_NODE_PRIVATE_ORIGINS"


def test_private_origins_are_origins_with_networks() -> None:
    settings = NodeSettings.load({**REQUIRED, PRIVATE: '{"http://a.example:8080": ["10.0.0.0/8", "fd00::/8"]}'})
    assert settings.private_origins == {"http://a.example:8080": ("10.0.0.0/8", "fd00::/8")}
    assert NodeSettings.load(REQUIRED).private_origins == {}


@pytest.mark.parametrize(
    "value",
    ['{"a.example": ["10.0.0.0/8"]}', '{"https://A.example": ["10.0.0.0/8"]}', '{"https://a.example": ["10.0.0.1/8"]}',
     '{"https://a.example": []}', '{"https://a.example": "10.0.0.0/8"}', '["https://a.example"]', "https://a.example"],
)  # fmt: skip
def test_a_misspelled_private_origin_stops_the_start(value: str) -> None:
    with pytest.raises(InvalidSettingsError) as refused:
        NodeSettings.load({**REQUIRED, PRIVATE: value})
    assert any(line.startswith(PRIVATE) for line in refused.value.lines)
