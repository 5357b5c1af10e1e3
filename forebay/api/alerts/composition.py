"""Alerts from settings: the channels, the desk of the routes, and what judges the rules."""

from __future__ import annotations

import os
import platform
import secrets
import time
from pathlib import Path
from typing import Final

from redis.asyncio import Redis

from forebay.access.key_store import KeyStore
from forebay.api.alerts.desk import AlertDesk
from forebay.config import Settings, SettingsError
from forebay.ops.alerts.rules import Rule, read_rules
from forebay.ops.alerts.store import AlertStore
from forebay.ops.alerts.telling import Teller, TellingTerms
from forebay.ops.alerts.watch import AlertWatch, WatchTerms
from forebay.ops.measuring import KeyExpiry, Measures
from forebay.ops.metrics import Metrics
from forebay.ops.notify.chats import DingTalk, Feishu, Slack, WeCom
from forebay.ops.notify.mail import Mail, MailServer
from forebay.ops.notify.news import Channel
from forebay.ops.notify.webhook import PlainWebhook
from forebay.ops.resources import Machine
from forebay.ops.worker_watch import RestartCounter
from forebay.outbound.client import Bounds, SafeClient
from forebay.outbound.reach import Reach
from forebay.outbound.signing import read_secrets
from forebay.queue.ports import Submitter

_PUSH_S: Final = 10.0
_ANSWER_BYTES: Final = 64 * 1024
_CONNECTIONS: Final = 8


def alert_rules(settings: Settings) -> tuple[Rule, ...]:
    """Return the rules with the settings' thresholds."""
    return read_rules(settings.alert_thresholds())


def alert_channels(settings: Settings) -> list[Channel]:
    """Return every channel that is set up. Raises SettingsError for a file without a secret."""
    reach = Reach.from_words(settings.alert_allow, settings.alert_ports)
    bounds = Bounds(total_s=_PUSH_S, body_bytes=_ANSWER_BYTES, connections=_CONNECTIONS)
    client = SafeClient(reach, bounds)
    found: list[Channel] = []
    if url := settings.secret_of("alert_dingtalk_url"):
        found.append(DingTalk(client, url, settings.secret_of("alert_dingtalk_secret")))
    if url := settings.secret_of("alert_wecom_url"):
        found.append(WeCom(client, url))
    if url := settings.secret_of("alert_feishu_url"):
        found.append(Feishu(client, url, settings.secret_of("alert_feishu_secret")))
    if url := settings.secret_of("alert_slack_url"):
        found.append(Slack(client, url))
    if url := settings.secret_of("alert_webhook_url"):
        found.append(PlainWebhook(client, url, _webhook_secrets(settings)))
    if settings.alert_smtp_host:
        found.append(Mail(_mail_server(settings)))
    return found


def alert_teller(settings: Settings, rules: tuple[Rule, ...], metrics: Metrics) -> Teller:
    """Return what tells people. Raises SettingsError."""
    terms = TellingTerms(
        settings.alert_repeat_s,
        settings.alert_name,
        settings.alert_language,
        settings.alert_runbook_url,
    )
    return Teller(alert_channels(settings), rules, metrics, terms)


def alert_desk(settings: Settings, redis: Redis, metrics: Metrics) -> AlertDesk:
    """Return what the routes work with. Raises SettingsError."""
    rules = alert_rules(settings)
    store = AlertStore(redis, settings.queue_name)
    return AlertDesk(store, rules, alert_teller(settings, rules, metrics))


def alert_watch(
    settings: Settings, desk: AlertDesk, queue: Submitter, metrics: Metrics, expiry: KeyExpiry
) -> AlertWatch:
    """Return what measures, and judges the rules unless that is off; to be entered."""
    measures = Measures(
        metrics,
        queue,
        Machine(settings.data_dir, _certificates(settings)),
        RestartCounter(settings.run_dir),
        expiry,
    )
    return AlertWatch(
        desk.store,
        metrics,
        desk.rules,
        desk.teller,
        measures.measure,
        WatchTerms(
            f"{platform.node()}:{os.getpid()}:{secrets.token_hex(4)}",
            settings.alert_every_s,
            settings.alerts,
        ),
    )


def first_key_expiry(keys: KeyStore) -> KeyExpiry:
    """Return what finds when the first of the good keys expires."""

    async def first() -> float | None:
        now_s = time.time()
        live = [one for one in await keys.list_keys() if one.is_live(now_s)]
        return min((one.expires_s for one in live if one.expires_s is not None), default=None)

    return first


def _webhook_secrets(settings: Settings) -> tuple[bytes, ...]:
    try:
        return read_secrets(settings.secret_of("alert_webhook_secret") or "")
    except ValueError as error:
        raise SettingsError(f"alert_webhook_secret_file: {error}") from error


def _mail_server(settings: Settings) -> MailServer:
    return MailServer(
        settings.alert_smtp_host,
        settings.alert_smtp_port,
        settings.alert_smtp_tls,
        settings.alert_mail_from,
        settings.alert_mail_to,
        settings.alert_smtp_user,
        settings.secret_of("alert_smtp_password") or "",
        None if settings.alert_smtp_ca is None else str(settings.alert_smtp_ca),
    )


def _certificates(settings: Settings) -> list[Path]:
    of_queue = (settings.queue_tls_ca, settings.queue_tls_cert)
    return [*map(Path, settings.alert_certificates), *(one for one in of_queue if one)]
