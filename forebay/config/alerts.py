"""The settings of alerts: thresholds, and who is told by what way."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal, Self

from pydantic import Field, SecretStr, model_validator

from forebay.config.group import SettingsGroup
from forebay.config.values import InsidePlaces, Ports, SigningSecrets, Texts

THRESHOLDS: Final = (
    "queue_waiting", "queue_oldest_s", "dead_letters", "worker_restarts", "errors", "latency_s",
    "requests_rise", "requests_rise_least_per_s", "gpu_use", "gpu_memory", "gpu_memory_limit",
    "cpu", "memory", "disk", "expiry_days",
)  # fmt: skip
"""What the rules know as ``${name}`` is the setting ``alert_name``."""


class AlertSettings(SettingsGroup):
    """From when on somebody is told, and how."""

    alerts: bool = Field(True, description="Whether the API judges the rules of alerts itself.")
    alert_every_s: float = Field(15.0, ge=1, le=30, description="Seconds between two looks.")
    alert_repeat_s: float = Field(
        14_400.0, ge=60, description="How often an alert that goes on firing is told again."
    )
    alert_language: Literal["en", "zh"] = Field("en", description="Language of what is told.")
    alert_name: str = Field(
        "Forebay", min_length=1, max_length=64, description="Name of this server in what is told."
    )
    alert_runbook_url: str = Field(
        "docs/runbook.md", description="Page with an entry for each alert, as it is told."
    )
    alert_queue_waiting: int = Field(20, ge=0, description="Alert: more tasks wait than this.")
    alert_queue_oldest_s: float = Field(
        300.0, gt=0, description="Alert: a task has waited for longer."
    )
    alert_dead_letters: int = Field(0, ge=0, description="Alert: there are more dead letters.")
    alert_worker_restarts: int = Field(
        2, ge=0, description="Alert: a worker began anew more often within 15 minutes."
    )
    alert_errors: float = Field(
        0.01, ge=0, le=1, description="Alert: a larger share of requests ends with a 5xx."
    )
    alert_latency_s: float = Field(
        3.0, gt=0, description="Alert: the 95th percentile of answers' time is over it."
    )
    alert_requests_rise: float = Field(
        2.0, gt=0, description="Alert: requests a second rose by more over the hour before; 2: 200%"
    )
    alert_requests_rise_least_per_s: float = Field(
        1.0, ge=0, description="Fewer requests a second than this are no such rise."
    )
    alert_gpu_use: float = Field(
        0.85, gt=0, le=1, description="Alert: a GPU is used by a larger share for five minutes."
    )
    alert_gpu_memory: float = Field(
        0.85, gt=0, le=1, description="Alert: so is a GPU's memory, for five minutes."
    )
    alert_gpu_memory_limit: float = Field(
        0.917, gt=0, le=1, description="Alert: so is a GPU's memory, at once; 11 of 12 GB."
    )
    alert_cpu: float = Field(
        0.7, gt=0, le=1, description="Alert: the CPUs are used by a larger share for five minutes."
    )
    alert_memory: float = Field(0.8, gt=0, le=1, description="Alert: so is the memory.")
    alert_disk: float = Field(0.9, gt=0, le=1, description="Alert: so is the data folder's disk.")
    alert_expiry_days: float = Field(
        14.0, ge=0, description="Alert: a certificate or API key expires within so many days."
    )
    alert_certificates: Texts = Field(
        (), description="Files of certificates (PEM) to watch, comma-separated; the queue's always."
    )
    alert_allow: InsidePlaces = Field(
        (),
        description="Hosts, addresses and networks (CIDR) inside that alerts may be pushed to, "
        "comma-separated; the public internet always.",
    )
    alert_ports: Ports = Field(
        (80, 443), description="Ports that alerts may be pushed to, comma-separated."
    )
    alert_dingtalk_url: SecretStr | None = Field(
        None, description="Webhook of a robot in DingTalk, with its access_token."
    )
    alert_dingtalk_url_file: Path | None = Field(None, description="File that holds it.")
    alert_dingtalk_secret: SecretStr | None = Field(
        None, description="Secret that signs messages to that robot."
    )
    alert_dingtalk_secret_file: Path | None = Field(None, description="File that holds it.")
    alert_wecom_url: SecretStr | None = Field(
        None, description="Webhook of a robot in WeCom, with its key."
    )
    alert_wecom_url_file: Path | None = Field(None, description="File that holds it.")
    alert_feishu_url: SecretStr | None = Field(None, description="Webhook of a robot in Feishu.")
    alert_feishu_url_file: Path | None = Field(None, description="File that holds it.")
    alert_feishu_secret: SecretStr | None = Field(
        None, description="Secret that signs messages to that robot."
    )
    alert_feishu_secret_file: Path | None = Field(None, description="File that holds it.")
    alert_slack_url: SecretStr | None = Field(None, description="Incoming webhook of Slack.")
    alert_slack_url_file: Path | None = Field(None, description="File that holds it.")
    alert_webhook_url: SecretStr | None = Field(
        None, description="Any receiver of signed webhooks; needs alert_webhook_secret."
    )
    alert_webhook_url_file: Path | None = Field(None, description="File that holds it.")
    alert_webhook_secret: SigningSecrets = Field(
        None, description="Secrets that sign them (`whsec_` and base64), comma-separated."
    )
    alert_webhook_secret_file: Path | None = Field(None, description="File that holds them.")
    alert_smtp_host: str = Field("", description="Mail server; empty: no mail.")
    alert_smtp_port: int = Field(587, ge=1, le=65535, description="Port of the mail server.")
    alert_smtp_tls: Literal["starttls", "tls", "none"] = Field(
        "starttls", description="TLS to the mail server; `none` sends no password."
    )
    alert_smtp_ca: Path | None = Field(
        None, description="Authority (PEM) to trust for it; unset: the system's."
    )
    alert_smtp_user: str = Field("", description="User of the mail server; empty: no login.")
    alert_smtp_password: SecretStr | None = Field(None, description="Password of that user.")
    alert_smtp_password_file: Path | None = Field(None, description="File that holds it.")
    alert_mail_from: str = Field("", description="Sender of mails.")
    alert_mail_to: Texts = Field((), description="Receivers of mails, comma-separated.")

    @model_validator(mode="after")
    def _whole_channels(self) -> Self:
        if self.alert_smtp_host and not (self.alert_mail_from and self.alert_mail_to):
            raise ValueError("alert_smtp_host needs alert_mail_from and alert_mail_to")
        if self.alert_smtp_user and self.alert_smtp_tls == "none":
            raise ValueError(
                "alert_smtp_user needs alert_smtp_tls: a password goes over no open line"
            )
        unsigned = self.alert_webhook_secret is None and self.alert_webhook_secret_file is None
        if (self.alert_webhook_url or self.alert_webhook_url_file) and unsigned:
            raise ValueError("alert_webhook_url needs alert_webhook_secret, or its file")
        return self

    def alert_thresholds(self) -> dict[str, float]:
        """Return the number of each threshold that the rules name."""
        return {name: float(getattr(self, f"alert_{name}")) for name in THRESHOLDS}
