"""Makes what the broker uses of what the operator set up: a client, a key, limits and ceilings for each binding."""

from collections.abc import Callable, Mapping
from typing import Final

from data_plane.broker.answers import ErrorKind, HostRefusal
from data_plane.broker.llm_answer_stream import Scrubbing
from data_plane.broker.scrub import Scrubber
from data_plane.broker.secret_binding import Secret, SecretKeeper, SecretUnusableError
from data_plane.egress_connect import Connector, Resolver, client_tls
from data_plane.http_calls import scrubbed_in_steps
from data_plane.http_egress import EgressLimits, HttpEgress
from data_plane.llm_calls import OfferedBinding
from data_plane.llm_settings import LlmBindingSettings
from data_plane.openai_llm import Key, KeySource, OpenAiEndpoint
from service.logs import get_logger
from service.settings import InvalidSettingsError
from service.telemetry import Field

REACH_FACTOR: Final = 3
"""Of a stream so many times the secret's length is held back: a percent-encoded character has three."""

log = get_logger("llm")


def offered_bindings(
    settings: Mapping[str, LlmBindingSettings],
    *,
    resolver: Resolver,
    secrets: SecretKeeper,
    monotonic: Callable[[], float],
) -> Mapping[str, OfferedBinding]:
    """Return the bindings by name.

    Raises:
        InvalidSettingsError: a file of certificate authorities cannot be read.
    """
    return {
        name: _offered(name, each, resolver=resolver, secrets=secrets, monotonic=monotonic)
        for name, each in settings.items()
    }


def _offered(
    name: str,
    settings: LlmBindingSettings,
    *,
    resolver: Resolver,
    secrets: SecretKeeper,
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
        key=None if settings.secret is None else _key_source(secrets, settings.secret),
        limits=EgressLimits(
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


def _key_source(secrets: SecretKeeper, name: str) -> KeySource:
    async def key() -> Key:
        try:
            return _key(await secrets.secret(name))
        except SecretUnusableError as error:
            log.warning("secret_unusable", **{Field.ERROR: str(error)})
            raise HostRefusal(ErrorKind.FAILED, "the node cannot use the secret of this binding") from None

    return key


def _key(secret: Secret) -> Key:
    """Make the header's value of a secret, which may be the bare key or the whole value with its scheme."""
    scheme, space, _ = secret.value.partition(" ")
    scrubber = Scrubber(secret.parts())

    async def scrub_long(text: str) -> str:
        return (await scrubbed_in_steps(scrubber, text.encode())).decode("utf-8", "replace")

    return Key(
        authorization=secret.value if space and scheme.isalpha() else f"Bearer {secret.value}",
        scrubbing=Scrubbing(
            scrub=scrubber.scrub_text,
            scrub_long=scrub_long,
            reach=REACH_FACTOR * max(map(len, secret.parts())),
        ),
    )
