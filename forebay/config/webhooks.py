"""The settings of webhooks: who signs them, where they may go, how often they are tried."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from forebay.config.group import SettingsError, SettingsGroup
from forebay.config.values import InsidePlaces, Ports, SigningSecrets
from forebay.outbound.signing import read_secrets


class WebhookSettings(SettingsGroup):
    """How the API tells the ends of tasks to those who asked for it."""

    webhook_secret: SigningSecrets = Field(
        None,
        description="Secrets that sign webhooks (`whsec_` and base64), comma-separated: each "
        "signs. Without one, here or in a file, webhooks are off.",
    )
    webhook_secret_file: Path | None = Field(
        None, description="File with such secrets, one a line; read at the start of the API."
    )
    webhook_allow: InsidePlaces = Field(
        (),
        description="Hosts, addresses and networks (CIDR) inside that webhooks may reach, "
        "comma-separated; the public internet always.",
    )
    webhook_ports: Ports = Field(
        (80, 443), description="Ports that webhooks may reach, comma-separated."
    )
    webhook_tries: int = Field(
        8, ge=1, le=20, description="Attempts to deliver a webhook; 8 take about a day."
    )
    webhook_timeout_s: float = Field(
        15.0, gt=0, le=120, description="How long a receiver has to take a webhook."
    )
    webhook_concurrency: int = Field(
        32,
        ge=1,
        le=1024,
        description="Webhooks that the API delivers at once, shared out among its processes.",
    )
    webhook_host_concurrency: int = Field(
        4, ge=1, le=1024, description="Of these, to one receiver."
    )

    def webhook_secrets(self) -> tuple[bytes, ...]:
        """Return the secrets that sign webhooks, those of the setting before those of the file.

        Raises:
            SettingsError: the file cannot be read, or holds something else.
        """
        own = self.webhook_secret.get_secret_value() if self.webhook_secret else ""
        if self.webhook_secret_file is None:
            return read_secrets(own)
        try:
            text = self.webhook_secret_file.expanduser().read_text(encoding="utf-8")
            of_file = read_secrets(text)
        except (OSError, ValueError) as error:
            raise SettingsError(f"webhook_secret_file: {error}") from error
        if not of_file:
            raise SettingsError(f"webhook_secret_file: {self.webhook_secret_file} holds no secret")
        return read_secrets(own) + of_file
