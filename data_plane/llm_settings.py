"""How an operator names endpoints of language models: the value of ``AGENTFACTORY_NODE_LLM_BINDINGS``, parsed once."""

import re
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from data_plane.broker.address_policy import Destinations
from data_plane.broker.llm_budget import MILLION, DayCeilings, Price
from data_plane.broker.llm_grant import LlmBinding
from data_plane.broker.origin import Origin

MODELS_MAX: Final = 64
_PATH: Final = re.compile(r"(?:/[A-Za-z0-9._~-]+){0,8}")
_SCHEME_HOST: Final = re.compile(r"(?P<origin>https?://[^/?#]*)(?P<path>.*)", re.DOTALL)

ModelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,99}$")]
SecretName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{1,40}$")]
Dollars = Annotated[Decimal, Field(ge=0, le=100_000, max_digits=12, decimal_places=6)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LlmModelSettings(_Strict):
    """One model; prices in US dollars for a million tokens, both or none."""

    input_usd_per_million: Dollars | None = None
    output_usd_per_million: Dollars | None = None

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if (self.input_usd_per_million is None) is not (self.output_usd_per_million is None):
            raise ValueError("expected both prices or none")
        return self

    @property
    def price(self) -> Price | None:
        if self.input_usd_per_million is None or self.output_usd_per_million is None:
            return None
        return Price(
            input_microusd=int(self.input_usd_per_million * MILLION),
            output_microusd=int(self.output_usd_per_million * MILLION),
        )


class LlmBindingSettings(_Strict):
    """One endpoint that speaks ``POST <base_url>/chat/completions``.

    ``networks`` are where its address may lie when that is not globally routable; plain http needs them too.
    """

    base_url: str
    models: dict[ModelName, LlmModelSettings] = Field(min_length=1, max_length=MODELS_MAX)
    secret: SecretName | None = None
    networks: tuple[str, ...] = ()
    ca_file: Path | None = None
    connect_s: float = Field(default=5.0, gt=0)
    timeout_s: float = Field(default=120.0, gt=0)
    idle_s: float = Field(default=60.0, gt=0)
    output_tokens_max: int = Field(default=4_096, ge=1)
    max_tokens_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    streaming: bool = True
    agent_tokens_per_day: int | None = Field(default=None, ge=0)
    agent_usd_per_day: Dollars | None = None
    tenant_tokens_per_day: int | None = Field(default=None, ge=0)
    tenant_usd_per_day: Dollars | None = None

    @field_validator("base_url")
    @classmethod
    def _is_base_url(cls, value: str) -> str:
        _split(value)
        return value

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        _ = self.destinations
        if not self.origin.is_tls and not self.networks:
            raise ValueError("expected https, or the networks in which a plain http endpoint lies")
        if self.has_cost_ceiling and any(each.price is None for each in self.models.values()):
            raise ValueError("expected a price of every model where a cost per day is bounded")
        return self

    @property
    def origin(self) -> Origin:
        return _split(self.base_url)[0]

    @property
    def target(self) -> str:
        return f"{_split(self.base_url)[1]}/chat/completions"

    @property
    def destinations(self) -> Destinations:
        return Destinations.parse({str(self.origin): self.networks} if self.networks else {})

    @property
    def has_cost_ceiling(self) -> bool:
        return self.agent_usd_per_day is not None or self.tenant_usd_per_day is not None

    @property
    def ceilings(self) -> DayCeilings:
        return DayCeilings(
            agent_tokens=self.agent_tokens_per_day,
            agent_cost_microusd=_microusd(self.agent_usd_per_day),
            tenant_tokens=self.tenant_tokens_per_day,
            tenant_cost_microusd=_microusd(self.tenant_usd_per_day),
        )

    def binding(self, name: str) -> LlmBinding:
        return LlmBinding(
            name=name,
            models={model: each.price for model, each in self.models.items()},
            output_tokens_max=self.output_tokens_max,
            streaming=self.streaming,
        )


def _split(base_url: str) -> tuple[Origin, str]:
    """Return origin and path; raise ValueError for what is not the one spelling of a base URL."""
    found = _SCHEME_HOST.fullmatch(base_url)
    if found is None or not _PATH.fullmatch(found["path"]):
        raise ValueError("expected https://host[:port][/path] without a slash at its end")
    return Origin.parse(found["origin"]), found["path"]


def _microusd(dollars: Decimal | None) -> int | None:
    return None if dollars is None else int(dollars * MILLION)
