"""Makes what the broker uses of what the operator set up: a client, limits and ceilings for each binding."""

from collections.abc import Callable, Mapping

from data_plane.egress_connect import Connector, Resolver, client_tls
from data_plane.http_egress import EgressLimits, HttpEgress
from data_plane.llm_calls import OfferedBinding
from data_plane.llm_settings import LlmBindingSettings
from data_plane.openai_llm import BODY_BYTES_MAX, KeySource, OpenAiEndpoint
from service.settings import InvalidSettingsError


def offered_bindings(
    settings: Mapping[str, LlmBindingSettings],
    *,
    resolver: Resolver,
    key_of: Callable[[str], KeySource],
    monotonic: Callable[[], float],
) -> Mapping[str, OfferedBinding]:
    """Return the bindings by name. ``key_of`` makes what looks a secret up.

    Raises:
        InvalidSettingsError: a file of certificate authorities cannot be read.
    """
    return {
        name: _offered(name, each, resolver=resolver, key_of=key_of, monotonic=monotonic)
        for name, each in settings.items()
    }


def _offered(
    name: str,
    settings: LlmBindingSettings,
    *,
    resolver: Resolver,
    key_of: Callable[[str], KeySource],
    monotonic: Callable[[], float],
) -> OfferedBinding:
    try:
        tls = client_tls(settings.ca_file)
    except OSError as error:
        raise InvalidSettingsError([f"llm binding {name}: expected certificates in ca_file, got: {error}"]) from error
    endpoint = OpenAiEndpoint(
        HttpEgress(Connector(destinations=settings.destinations, resolver=resolver, tls=tls)),
        origin=settings.origin,
        target=settings.target,
        key=None if settings.secret is None else key_of(settings.secret),
        limits=EgressLimits(
            body_bytes_max=BODY_BYTES_MAX,
            connect_s=settings.connect_s,
            first_byte_s=settings.timeout_s,
            piece_s=settings.idle_s,
            total_s=settings.timeout_s,
        ),
        monotonic=monotonic,
    )
    return OfferedBinding(
        binding=settings.binding(name),
        endpoint=endpoint,
        ceilings=settings.ceilings,
        max_tokens_name=settings.max_tokens_name,
    )
