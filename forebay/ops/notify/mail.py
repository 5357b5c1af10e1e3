"""E-mail by SMTP: on a thread, for the standard library's client blocks."""

from __future__ import annotations

import asyncio
import smtplib
import ssl
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import Final, Literal

from forebay.ops.notify.news import News, PushError

_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class MailServer:
    """Where mail goes, and who sends it.

    ``tls``: ``starttls``, ``tls`` from the first byte, or ``none``, which sends no password.
    """

    host: str
    port: int
    tls: Literal["starttls", "tls", "none"]
    sender: str
    recipients: tuple[str, ...]
    user: str = ""
    password: str = field(default="", repr=False)
    ca_file: str | None = None


class Mail:
    """Sends plain text to the recipients."""

    name = "mail"

    def __init__(self, server: MailServer) -> None:
        self._server = server

    async def send(self, news: News) -> None:
        """Send one message. Raises PushError."""
        message = self._message(news)
        try:
            await asyncio.to_thread(self._deliver, message)
        except smtplib.SMTPResponseException as error:
            raise PushError(f"the mail server refused it: code {error.smtp_code}") from error
        except (OSError, smtplib.SMTPException) as error:
            raise PushError(f"the mail server: {type(error).__name__}") from error

    def _message(self, news: News) -> EmailMessage:
        message = EmailMessage()
        message["Subject"] = news.title
        message["From"] = self._server.sender
        message["To"] = ", ".join(self._server.recipients)
        message["Date"] = formatdate(usegmt=True)
        message["Message-ID"] = make_msgid(domain="forebay.invalid")
        message["Auto-Submitted"] = "auto-generated"  # no out-of-office answers to it: RFC 3834
        message.set_content("\n".join(news.lines()))
        return message

    def _deliver(self, message: EmailMessage) -> None:
        server = self._server
        context = ssl.create_default_context(cafile=server.ca_file)
        place = (server.host, server.port)
        with (
            smtplib.SMTP_SSL(*place, timeout=_TIMEOUT_S, context=context)
            if server.tls == "tls"
            else smtplib.SMTP(*place, timeout=_TIMEOUT_S)
        ) as smtp:
            if server.tls == "starttls":
                smtp.starttls(context=context)
            if server.user:
                smtp.login(server.user, server.password)
            refused = smtp.send_message(message)
        if refused:
            raise PushError(f"the mail server refused {len(refused)} of the recipients")
