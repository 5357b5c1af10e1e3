"""Receivers of messages, each as strict as the service it stands for: form, signature, time.

They verify by the services' own documentation, written apart from the senders.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from standardwebhooks import Webhook, WebhookVerificationError

from tests.outbound.raw_server import RawServer, ok

HOUR_S = 3600.0
Judge = Callable[[str, dict[str, str], bytes], bytes]


class WebhookReceiver:
    """An HTTP receiver; ``judge`` answers each request by its path, headers and body."""

    def __init__(self, judge: Judge) -> None:
        self.server = RawServer(other=self._answer)
        self._judge = judge
        self.bodies: list[Any] = []

    async def _answer(self, writer: asyncio.StreamWriter) -> None:
        line, headers, body = self.server.asked[-1]
        method, path, _ = line.split()
        assert method == "POST"
        assert headers["content-type"].startswith("application/json")
        self.bodies.append(json.loads(body))
        writer.write(self._judge(path, headers, body))
        await writer.drain()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        async with self.server.listening() as server:
            yield f"http://127.0.0.1:{server.port}"


def said(**answer: Any) -> bytes:
    return ok(json.dumps(answer).encode(), content_type="application/json")


def dingtalk(secret: str, token: str) -> Judge:
    """Errors as DingTalk's: 310000 for a wrong signature, 300001 for a wrong token."""

    def judge(path: str, headers: dict[str, str], body: bytes) -> bytes:
        query = {name: values[0] for name, values in parse_qs(urlsplit(path).query).items()}
        if query.get("access_token") != token:
            return said(errcode=300001, errmsg="token is not exist")
        timestamp = query.get("timestamp", "0")
        digest = hmac.new(
            secret.encode(), f"{timestamp}\n{secret}".encode(), digestmod=hashlib.sha256
        ).digest()
        right = hmac.compare_digest(query.get("sign", ""), base64.b64encode(digest).decode())
        if not right or abs(time.time() * 1000 - int(timestamp)) > HOUR_S * 1000:
            return said(errcode=310000, errmsg="sign not match")
        message = json.loads(body)
        if message.get("msgtype") != "markdown" or not all(
            isinstance(message["markdown"].get(name), str) for name in ("title", "text")
        ):
            return said(errcode=40035, errmsg="invalid parameter")
        return said(errcode=0, errmsg="ok")

    return judge


def wecom(key: str) -> Judge:
    """Errors as WeCom's: 93000 for a wrong key, 40058 for a text over 4,096 bytes."""

    def judge(path: str, headers: dict[str, str], body: bytes) -> bytes:
        if parse_qs(urlsplit(path).query).get("key") != [key]:
            return said(errcode=93000, errmsg="invalid webhook url")
        message = json.loads(body)
        content = message["markdown"]["content"]
        if message["msgtype"] != "markdown" or not 0 < len(content.encode()) <= 4096:
            return said(errcode=40058, errmsg="markdown.content exceed max length 4096")
        return said(errcode=0, errmsg="ok")

    return judge


def feishu(secret: str) -> Judge:
    """Errors as Feishu's: 19021 for a wrong signature or time, 9499 for a wrong form."""

    def judge(path: str, headers: dict[str, str], body: bytes) -> bytes:
        message = json.loads(body)
        timestamp = message.get("timestamp", "0")
        digest = hmac.new(f"{timestamp}\n{secret}".encode(), digestmod=hashlib.sha256).digest()
        right = message.get("sign") == base64.b64encode(digest).decode()
        if not right or abs(time.time() - int(timestamp)) > HOUR_S:
            return said(code=19021, msg="sign match fail or timestamp is not within one hour")
        if message.get("msg_type") != "text" or not isinstance(message["content"]["text"], str):
            return said(code=9499, msg="Bad Request")
        return said(StatusCode=0, StatusMessage="success", code=0, data={}, msg="success")

    return judge


def slack() -> Judge:
    """Errors as Slack's: 404 for an unknown hook, 400 for blocks that are not of its form."""

    def judge(path: str, headers: dict[str, str], body: bytes) -> bytes:
        if path != "/services/T0/B0/token":
            return b"HTTP/1.1 404 Not Found\r\nContent-Length: 10\r\n\r\nno_service"
        message = json.loads(body)
        texts = [block["text"] for block in message["blocks"] if block["type"] == "section"]
        fine = all(one["type"] == "mrkdwn" and 0 < len(one["text"]) <= 3000 for one in texts)
        if not (texts and fine and message["text"]):
            return b"HTTP/1.1 400 Bad Request\r\nContent-Length: 14\r\n\r\ninvalid_blocks"
        return ok(b"ok", content_type="text/html")

    return judge


def standard_webhook(secret: str) -> Judge:
    """Verifies with the reference library of Standard Webhooks."""

    def judge(path: str, headers: dict[str, str], body: bytes) -> bytes:
        try:
            Webhook(secret).verify(body, headers)
        except WebhookVerificationError:
            return b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"
        return b"HTTP/1.1 204 No Content\r\n\r\n"

    return judge


@dataclass
class SmtpReceiver:
    """A mail server with STARTTLS and AUTH PLAIN, which is offered over TLS alone (RFC 4954)."""

    tls: ssl.SSLContext
    user: str
    password: str
    implicit: bool = False
    unknown: frozenset[str] = frozenset()
    port: int = 0
    mails: list[tuple[str, list[str], bytes]] = field(default_factory=list)
    in_the_open: list[bytes] = field(default_factory=list)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[SmtpReceiver]:
        tls = self.tls if self.implicit else None
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await _SmtpTalk(self, reader, writer).go()
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass  # the client had enough
        finally:
            writer.transport.abort()


class _SmtpTalk:
    def __init__(
        self, server: SmtpReceiver, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._server, self._reader, self._writer = server, reader, writer
        self._safe, self._known = server.implicit, False
        self._sender, self._recipients = "", []

    async def go(self) -> None:
        await self._say("220 mail.test ESMTP")
        while (line := await self._reader.readline()) and await self._obey(line):
            pass

    async def _obey(self, line: bytes) -> bool:
        if not self._safe:
            self._server.in_the_open.append(line)
        verb, _, rest = line.decode().strip().partition(" ")
        match verb.upper():
            case "EHLO":
                offered = "AUTH PLAIN" if self._safe else "STARTTLS"
                await self._say(f"250-mail.test\r\n250 {offered}")
            case "STARTTLS":
                await self._say("220 go ahead")
                await self._writer.start_tls(self._server.tls)
                self._safe = True
            case "AUTH":
                told = base64.b64decode(rest.split()[1]).decode().split("\0")
                self._known = told == ["", self._server.user, self._server.password]
                await self._say("235 welcome" if self._known else "535 wrong password")
            case "MAIL":
                self._sender, self._recipients = rest, []
                await self._say("250 ok" if self._known else "530 who are you")
            case "RCPT":
                refused = any(one in rest for one in self._server.unknown)
                if not refused:
                    self._recipients.append(rest)
                await self._say("550 no such user" if refused else "250 ok")
            case "DATA":
                await self._say("354 go on")
                body = await self._reader.readuntil(b"\r\n.\r\n")
                self._server.mails.append((self._sender, self._recipients, body[:-3]))
                await self._say("250 taken")
            case "QUIT":
                await self._say("221 bye")
                return False
            case _:
                await self._say("250 ok")
        return True

    async def _say(self, text: str) -> None:
        self._writer.write(f"{text}\r\n".encode())
        await self._writer.drain()
