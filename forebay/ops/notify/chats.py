"""The robots of chat services: each its own form, signature and way to say no.

Sources: https://open.dingtalk.com/document/robots/custom-robot-access,
https://developer.work.weixin.qq.com/document/path/91770,
https://open.feishu.cn/document/client-docs/bot-v3/add-custom-bot,
https://api.slack.com/messaging/webhooks.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote_plus

from forebay.ops.notify.news import News, PushError, clipped
from forebay.outbound.client import Reply, SafeClient
from forebay.outbound.errors import OutboundError

_JSON: Final = {"Content-Type": "application/json; charset=utf-8"}
_DINGTALK_BYTES: Final = 18_000
_WECOM_BYTES: Final = 4_096
_FEISHU_BYTES: Final = 18_000
_SLACK_BYTES: Final = 2_900

Clock = Callable[[], float]


class _Robot:
    """Something with a URL that takes JSON."""

    def __init__(self, client: SafeClient, url: str) -> None:
        self._client = client
        self._url = url

    async def _post(self, url: str, body: dict[str, Any]) -> Reply:
        """Send ``body`` to ``url``; return the answer. Raises PushError unless it is a 2xx."""
        text = json.dumps(body, ensure_ascii=False).encode()
        try:
            reply = await self._client.post_for_answer(url, _JSON, text)
        except OutboundError as error:
            raise PushError(str(error)) from error
        if not 200 <= reply.status < 300:
            raise PushError(f"it answered with status {reply.status}")
        return reply


class _SigningRobot(_Robot):
    """One with a ``secret``, where its messages are to be signed."""

    def __init__(
        self, client: SafeClient, url: str, secret: str | None = None, clock: Clock = time.time
    ) -> None:
        super().__init__(client, url)
        self._secret = secret
        self._now = clock


class DingTalk(_SigningRobot):
    """A robot of a DingTalk group."""

    name = "dingtalk"

    async def send(self, news: News) -> None:
        """Send one message. Raises PushError."""
        text = clipped([f"### {news.title}", "", *_spread(news.lines("**"))], _DINGTALK_BYTES)
        body = {"msgtype": "markdown", "markdown": {"title": news.title, "text": text}}
        reply = await self._post(self._signed_url(), body)
        _check_code(reply, ("errcode",))

    def _signed_url(self) -> str:
        if self._secret is None:
            return self._url
        timestamp = str(round(self._now() * 1000))
        signature = _hmac(self._secret.encode(), f"{timestamp}\n{self._secret}".encode())
        sign = "&" if "?" in self._url else "?"
        return f"{self._url}{sign}timestamp={timestamp}&sign={quote_plus(signature)}"


class WeCom(_Robot):
    """A robot of a WeCom group; its URL is its secret."""

    name = "wecom"

    async def send(self, news: News) -> None:
        """Send one message. Raises PushError."""
        text = clipped([f"### {news.title}", *news.lines("**")], _WECOM_BYTES)
        body = {"msgtype": "markdown", "markdown": {"content": text}}
        _check_code(await self._post(self._url, body), ("errcode",))


class Feishu(_SigningRobot):
    """A robot of a Feishu (Lark) group."""

    name = "feishu"

    async def send(self, news: News) -> None:
        """Send one message. Raises PushError."""
        text = clipped([news.title, *news.lines()], _FEISHU_BYTES)
        body: dict[str, Any] = {"msg_type": "text", "content": {"text": text}}
        if self._secret is not None:
            timestamp = str(round(self._now()))
            # the text to be signed is the key here, and what is signed is nothing
            body["timestamp"] = timestamp
            body["sign"] = _hmac(f"{timestamp}\n{self._secret}".encode(), b"")
        _check_code(await self._post(self._url, body), ("code", "StatusCode"))


class Slack(_Robot):
    """An incoming webhook of Slack, or of what understands its form; its URL is its secret."""

    name = "slack"

    async def send(self, news: News) -> None:
        """Send one message. Raises PushError."""
        text = clipped([f"*{_escaped(news.title)}*", *map(_escaped, news.lines("*"))], _SLACK_BYTES)
        block = {"type": "section", "text": {"type": "mrkdwn", "text": text}}
        await self._post(self._url, {"text": news.title, "blocks": [block]})


def _check_code(reply: Reply, names: tuple[str, ...]) -> None:
    """Raise PushError unless the answer says 0: these services refuse with status 200, too."""
    try:
        said = json.loads(reply.body)
    except ValueError as error:
        raise PushError("its answer is not JSON") from error
    codes = [said[name] for name in names if isinstance(said, dict) and name in said]
    if not codes or any(code != 0 for code in codes):
        raise PushError(f"it refused the message: code {codes[0] if codes else 'none'}")


def _hmac(key: bytes, message: bytes) -> str:
    return base64.b64encode(hmac.digest(key, message, hashlib.sha256)).decode()


def _spread(lines: list[str]) -> list[str]:
    """Return lines with empty ones between: one line end is none in DingTalk's Markdown."""
    return [part for line in lines for part in (line, "")]


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
