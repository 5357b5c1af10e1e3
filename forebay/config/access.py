"""The settings of who may come in."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator

from forebay.access.addresses import ForwardedHeader, read_address, read_networks
from forebay.access.caller import Scope
from forebay.access.errors import AccessSetupError
from forebay.access.rules import METRICS_LIST, AccessRules
from forebay.access.secret_file import read_secret_file
from forebay.access.setup import SUBJECT, AccessSetup, TokenRules, TokenSetup
from forebay.config.group import SettingsGroup
from forebay.config.values import Texts


class AccessSettings(SettingsGroup):
    """Who may come in, from where, and how often."""

    api_key: SecretStr | None = Field(
        None, description="Key that `forebay ask` sends to a server that wants one."
    )
    api_key_file: Path | None = Field(None, description="File that holds it.")
    auth: Literal["none", "keys", "jwt", "both"] = Field(
        "none",
        description="Who is let in: `keys` (API keys), `jwt` (tokens), `both` kinds, or `none`: "
        "anyone, on loopback only; administration needs a key even then.",
    )
    insecure_anyone_from_anywhere: bool = Field(
        False, description="Let anyone in on an address that is not loopback (`auth` is `none`)."
    )
    key_pepper_file: Path | None = Field(
        None, description="File with the secret that API keys are hashed with; unset: in data_dir."
    )
    jwt_secret: SecretStr | None = Field(
        None, description="Secret of tokens signed with HS256, 32 bytes or longer."
    )
    jwt_secret_file: Path | None = Field(None, description="File that holds it.")
    jwt_public_key_file: Path | None = Field(
        None, description="PEM file: public key of tokens signed with RS256 or ES256."
    )
    jwt_jwks_url: str | None = Field(
        None, description="Where the issuer publishes its keys (https, JWKS)."
    )
    jwt_issuer: str = Field("", description="Issuer (`iss`) that tokens must have.")
    jwt_audience: str = Field("", description="Audience (`aud`) that tokens must be for.")
    jwt_leeway_s: float = Field(
        30.0, ge=0, le=300, description="How wrong clocks may be when a token's times are checked."
    )
    jwt_tenant_claim: str = Field(
        SUBJECT,
        min_length=1,
        description="Claim that names the tenant; `sub`: one for each subject.",
    )
    jwt_scope_claim: str = Field(
        "scope", min_length=1, description="Claim that lists the scopes `infer`, `tasks`, `admin`."
    )
    anonymous_rate_per_s: float = Field(
        10.0, gt=0, description="Requests a second from one address, where anyone is let in."
    )
    anonymous_burst: int = Field(
        50, ge=1, description="Requests that it may send at once before that rate counts."
    )
    address_rate_per_s: float | None = Field(
        None, gt=0, description="Requests a second from one address, with keys too; unset: any."
    )
    address_burst: int = Field(
        50, ge=1, description="Requests that it may send at once before that rate counts."
    )
    trusted_proxies: Texts = Field(
        (), description="Networks (CIDR) of proxies whose word on a client's address is taken."
    )
    forwarded_header: Literal["x-forwarded-for", "forwarded"] = Field(
        "x-forwarded-for", description="Header in which they say it; no other one is read."
    )
    allow_infer: Texts = Field((), description="Networks that may infer; empty: every one.")
    allow_tasks: Texts = Field((), description="Networks that may use tasks; empty: every one.")
    allow_admin: Texts = Field((), description="Networks that may administer; empty: every one.")
    allow_metrics: Texts = Field(
        (), description="Networks that may read `/metrics`; empty: every one."
    )
    cors_origins: Texts = Field(
        (), description="Other web pages' origins that may call from a browser; `*`: every one."
    )
    cors_credentials: bool = Field(
        False, description="Browsers may send them cookies and the like; never with `*`."
    )

    @field_validator(
        "trusted_proxies", "allow_infer", "allow_tasks", "allow_admin", "allow_metrics"
    )
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        read_networks(value)
        return value

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for one in value:
            scheme, sign, rest = one.partition("://")
            plain = scheme in ("http", "https") and sign and rest and "/" not in rest
            if one != "*" and not plain:
                raise ValueError(f"{one!r} is no origin, such as https://app.example.com")
        return value

    def door_fault(self, host: str) -> str | None:
        """Return what must be mended before a door on ``host`` opens, None where nothing."""
        if (
            self.auth == "none"
            and not _is_loopback(host)
            and not self.insecure_anyone_from_anywhere
        ):
            return (
                f"host is {host}, which others can reach, and auth is none: anyone could use this "
                "server. Set auth=keys and make a key with `forebay keys create`, set host to "
                "127.0.0.1, or set insecure_anyone_from_anywhere=true"
            )
        if "*" in self.cors_origins and self.cors_credentials:
            return "cors_credentials cannot go with cors_origins=*: name the origins"
        return self._token_fault() if self.auth in ("jwt", "both") else None

    def _token_fault(self) -> str | None:
        sources = (
            self.jwt_secret, self.jwt_secret_file, self.jwt_public_key_file, self.jwt_jwks_url
        )  # fmt: skip
        if sum(one is not None for one in sources) != 1:
            return (
                f"auth is {self.auth}: set exactly one of jwt_secret, jwt_secret_file, "
                "jwt_public_key_file and jwt_jwks_url"
            )
        if not self.jwt_issuer or not self.jwt_audience:
            return f"auth is {self.auth}: set jwt_issuer and jwt_audience, which tokens must name"
        return None

    def access_setup(self, data_dir: Path, host: str) -> AccessSetup:
        """Return what a door on ``host`` is set up with.

        Raises AccessSetupError for an unusable file.
        """
        return AccessSetup(
            self._rules(host),
            self.pepper_file(data_dir),
            takes_keys=self.auth != "jwt",
            tokens=self._tokens() if self.auth in ("jwt", "both") else None,
        )

    def pepper_file(self, data_dir: Path) -> Path:
        """Return the file with the secret that API keys are hashed with."""
        return self.key_pepper_file or data_dir / "access" / "key_pepper"

    def _rules(self, host: str) -> AccessRules:
        lists = {
            Scope.INFER: self.allow_infer,
            Scope.TASKS: self.allow_tasks,
            Scope.ADMIN: self.allow_admin,
            METRICS_LIST: self.allow_metrics,
        }
        return AccessRules(
            anonymous=self.auth == "none",
            loopback_only=_is_loopback(host),
            anonymous_rate_per_s=self.anonymous_rate_per_s,
            anonymous_burst=self.anonymous_burst,
            address_rate_per_s=self.address_rate_per_s,
            address_burst=self.address_burst,
            trusted_proxies=read_networks(self.trusted_proxies),
            forwarded_header=ForwardedHeader(self.forwarded_header),
            allowed={scope: read_networks(texts) for scope, texts in lists.items() if texts},
            origins=frozenset(self.cors_origins),
        )

    def _tokens(self) -> TokenSetup:
        if fault := self._token_fault():
            raise AccessSetupError(fault)
        rules = TokenRules(
            self.jwt_issuer,
            self.jwt_audience,
            self.jwt_leeway_s,
            self.jwt_tenant_claim,
            self.jwt_scope_claim,
        )
        secret = self.jwt_secret.get_secret_value() if self.jwt_secret else None
        if self.jwt_secret_file is not None:  # one of them: _token_fault
            secret = read_secret_file(self.jwt_secret_file)
        pem = self.jwt_public_key_file
        return TokenSetup(rules, secret, read_secret_file(pem) if pem else None, self.jwt_jwks_url)


def _is_loopback(host: str) -> bool:
    address = read_address(host)
    return host == "localhost" or (address is not None and address.is_loopback)
