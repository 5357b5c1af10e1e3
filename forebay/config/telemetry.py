"""The settings of metrics and traces: where they are sent, and what they tell apart."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, model_validator

from forebay.config.group import SettingsError, SettingsGroup
from forebay.ops.telemetry import TelemetryTerms

EXTRA = "opentelemetry"


class TelemetrySettings(SettingsGroup):
    """What leaves the machine of metrics and traces, if anything does."""

    otlp_endpoint: str = Field(
        "",
        pattern=r"^(https?://\S+)?$",
        description="OpenTelemetry collector for traces and metrics, as `http://127.0.0.1:4318`; "
        "needs `forebay[otlp]`. Empty: nothing is sent.",
    )
    otlp_headers: SecretStr | None = Field(
        None, description="Headers that it wants, `name=value,name=value`."
    )
    otlp_headers_file: Path | None = Field(None, description="File that holds them.")
    otlp_metrics_s: float = Field(
        15.0, ge=0, le=3600, description="How often metrics are sent there; 0: traces only."
    )
    otlp_sample: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Share of the traces that begin here that is sent; a caller's own trace is "
        "sent as the caller says.",
    )
    metrics_tenants: int = Field(
        0,
        ge=0,
        le=1000,
        description="Tenants that metrics tell apart by name, the others together; 0: none.",
    )

    @model_validator(mode="after")
    def _otlp_can_be_spoken(self) -> Self:
        if self.otlp_endpoint and (find_spec(EXTRA) is None or find_spec(f"{EXTRA}.proto") is None):
            raise ValueError("otlp_endpoint needs an extra: pip install 'forebay[otlp]'")
        return self

    def telemetry(self) -> TelemetryTerms:
        """Return where traces and metrics go. Raises SettingsError for headers that are none."""
        try:
            headers = read_headers(self.secret_of("otlp_headers") or "")
        except ValueError as error:
            raise SettingsError(f"otlp_headers: {error}") from error
        return TelemetryTerms(self.otlp_endpoint, headers, self.otlp_metrics_s, self.otlp_sample)


def read_headers(text: str) -> dict[str, str]:
    """Read ``name=value,name=value``. Raises ValueError naming what is none, not its value."""
    pairs = [one.strip().partition("=") for one in text.split(",") if one.strip()]
    for at, (name, sign, value) in enumerate(pairs, start=1):
        if not (name.strip() and sign and value.strip()):
            raise ValueError(f"header {at} is not of the form name=value")
    return {name.strip(): value.strip() for name, _, value in pairs}
