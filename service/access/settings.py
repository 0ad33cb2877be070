"""What operators say about access: who has which role, who vouches for people, how much may be asked."""

from pathlib import Path
from typing import Self

from pydantic import Field, field_validator, model_validator

from service.access.oidc_fetch import issuer_problem
from service.access.rates import Rate, Rates
from service.access.tokens import ALGORITHMS, TokenRules
from service.settings import ServerSettings


class AccessSettings(ServerSettings):
    """Of both planes. Rates are off here; a control plane has defaults of its own."""

    roles_file: Path | None = Field(
        default=None,
        description="JSON that binds persons and groups to roles, read again when it changes (access.md). Unset: "
        "every certified person is viewer and author, the charter's persons are operators and admins.",
    )
    reload_s: float = Field(
        default=1.0,
        gt=0,
        le=60,
        description="How often certificates, keys and the role file are looked at for changes.",
    )
    people_port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="Second port, where people show a token instead of a certificate; needs `oidc_issuer`.",
    )
    oidc_issuer: str | None = Field(
        default=None, description="Issuer of people's tokens, `https://…`, as its discovery document names itself."
    )
    oidc_audience: str = Field(default="agentfactory", description="Audience that a token must name.")
    oidc_algorithms: tuple[str, ...] = Field(
        default=("RS256", "ES256"), description="Signature algorithms that are allowed, JSON; asymmetric ones only."
    )
    oidc_person_claim: str = Field(
        default="sub", min_length=1, description="Claim that holds the person's name as the charter knows it."
    )
    oidc_groups_claim: str = Field(
        default="groups", min_length=1, description="Claim that holds the person's groups, for the role file."
    )
    oidc_skew_s: int = Field(default=30, ge=0, le=300, description="How far the issuer's clock may be from this one.")
    oidc_lifetime_s_max: int = Field(
        default=86_400, gt=0, description="Tokens that run longer than this from now are refused."
    )
    oidc_authorities_file: Path | None = Field(
        default=None, description="Authorities that sign the issuer's certificate, PEM; unset: the system's."
    )
    rate_per_minute: int = Field(default=0, ge=0, description="Calls of everybody together in a minute; 0: no limit.")
    rate_burst: int = Field(default=500, ge=1, description="How many of those may come at once.")
    principal_rate_per_minute: int = Field(
        default=0, ge=0, description="Calls of one identity in a minute; 0: no limit."
    )
    principal_rate_burst: int = Field(default=20, ge=1, description="How many of those may come at once.")
    address_rate_per_minute: int = Field(
        default=0, ge=0, description="Calls from one address (IPv6: one /64) in a minute; 0: no limit."
    )
    address_rate_burst: int = Field(default=100, ge=1, description="How many of those may come at once.")
    stream_stall_s: float = Field(
        default=60.0, gt=0, description="A stream whose receiver takes nothing for this long is ended."
    )
    stream_s_max: float = Field(
        default=3600.0, gt=0, description="Longest that a stream may take that should end by itself."
    )

    @field_validator("oidc_issuer")
    @classmethod
    def _is_an_issuer(cls, value: str | None) -> str | None:
        problem = "" if value is None else issuer_problem(value)
        if problem:
            raise ValueError(problem)
        return value

    @field_validator("oidc_algorithms")
    @classmethod
    def _are_asymmetric(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or not set(value) <= ALGORITHMS.keys():
            raise ValueError(f"expected algorithms of {', '.join(ALGORITHMS)}")
        return value

    @model_validator(mode="after")
    def _people_have_an_issuer(self) -> Self:
        if (self.people_port is None) is not (self.oidc_issuer is None):
            raise ValueError("expected people_port and oidc_issuer both or neither")
        return self

    @property
    def rates(self) -> Rates:
        return Rates(
            together=Rate(per_minute=self.rate_per_minute, burst=self.rate_burst),
            principal=Rate(per_minute=self.principal_rate_per_minute, burst=self.principal_rate_burst),
            address=Rate(per_minute=self.address_rate_per_minute, burst=self.address_rate_burst),
        )

    @property
    def token_rules(self) -> TokenRules | None:
        if self.oidc_issuer is None:
            return None
        return TokenRules(
            issuer=self.oidc_issuer,
            audience=self.oidc_audience,
            trust_domain=self.trust_domain,
            algorithms=self.oidc_algorithms,
            person_claim=self.oidc_person_claim,
            groups_claim=self.oidc_groups_claim,
            skew_s=self.oidc_skew_s,
            lifetime_s_max=self.oidc_lifetime_s_max,
        )
