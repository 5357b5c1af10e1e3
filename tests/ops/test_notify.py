"""Every channel before a receiver that checks form, signature and time as the real service does."""

from __future__ import annotations

import email
import email.policy
import ssl
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from forebay.ops.notify.chats import DingTalk, Feishu, Slack, WeCom
from forebay.ops.notify.mail import Mail, MailServer
from forebay.ops.notify.news import MOST_ITEMS, Channel, Item, News, PushError, clipped
from forebay.ops.notify.webhook import PlainWebhook
from forebay.outbound.client import Bounds, SafeClient
from forebay.outbound.reach import Reach
from forebay.outbound.signing import read_secrets
from tests.ops import receivers
from tests.ops.receivers import SmtpReceiver, WebhookReceiver

SECRET = "SECd41d8cd98f00b204"
HOOK_SECRET = "whsec_" + "c2VjcmV0IG9mIHRoZSB0ZXN0cyBvZiB3ZWJob29rcw=="
ITEMS = (
    Item("GpuBusy", "warning", "GPU 0 of a<b is used by 91% & more.", 1.7e9, "r#gpu", "GpuBusy{}"),
    Item("DiskFull", "resolved", "磁盘使用率为 95%。", 1.7e9),
)
NEWS = News(ITEMS, "forebay-1", "zh")
HUGE = News(tuple(Item(f"Rule{i}", "critical", "磁盘" * 2000, 1.7e9) for i in range(50)), "f")


def client(url: str, allowed: tuple[str, ...] = ("127.0.0.0/8",)) -> SafeClient:
    port = int(url.rpartition(":")[2])
    return SafeClient(Reach.from_words(allowed, [port]), Bounds(total_s=5.0, body_bytes=65_536))


Make = Callable[[str], Channel]
KINDS: dict[str, tuple[receivers.Judge, Make, Make]] = {
    "dingtalk": (
        receivers.dingtalk(SECRET, "good"),
        lambda url: DingTalk(client(url), f"{url}/robot/send?access_token=good", SECRET),
        lambda url: DingTalk(client(url), f"{url}/robot/send?access_token=good", "SECother"),
    ),
    "wecom": (
        receivers.wecom("good"),
        lambda url: WeCom(client(url), f"{url}/cgi-bin/webhook/send?key=good"),
        lambda url: WeCom(client(url), f"{url}/cgi-bin/webhook/send?key=other"),
    ),
    "feishu": (
        receivers.feishu(SECRET),
        lambda url: Feishu(client(url), f"{url}/open-apis/bot/v2/hook/abc", SECRET),
        lambda url: Feishu(client(url), f"{url}/open-apis/bot/v2/hook/abc", "other"),
    ),
    "slack": (
        receivers.slack(),
        lambda url: Slack(client(url), f"{url}/services/T0/B0/token"),
        lambda url: Slack(client(url), f"{url}/services/T0/B0/other"),
    ),
    "webhook": (
        receivers.standard_webhook(HOOK_SECRET),
        lambda url: PlainWebhook(client(url), f"{url}/alerts", read_secrets(HOOK_SECRET)),
        lambda url: PlainWebhook(client(url), f"{url}/alerts", [b"x" * 32]),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("news", [NEWS, HUGE], ids=["two", "fifty long ones"])
async def test_a_channel_s_message_is_taken_by_its_service(kind: str, news: News) -> None:
    judge, make, _ = KINDS[kind]
    receiver = WebhookReceiver(judge)
    async with receiver.listening() as url:
        await make(url).send(news)
    text = str(receiver.bodies[0])
    assert news.title in text
    assert news.items[0].name in text


@pytest.mark.parametrize("kind", KINDS)
async def test_a_refusal_is_known_and_names_no_secret(kind: str) -> None:
    judge, _, make_wrong = KINDS[kind]
    receiver = WebhookReceiver(judge)
    async with receiver.listening() as url:
        with pytest.raises(PushError) as caught:
            await make_wrong(url).send(NEWS)
    for secret in ("SECother", "other", "127.0.0.1", SECRET):
        assert secret not in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
async def test_inside_addresses_are_pushed_to_only_where_the_operator_allows_it(kind: str) -> None:
    judge, make, _ = KINDS[kind]
    receiver = WebhookReceiver(judge)
    async with receiver.listening() as url:
        channel = make(url)
        channel._client = client(url, allowed=())
        with pytest.raises(PushError, match="public internet"):
            await channel.send(NEWS)
    assert receiver.server.connections == 0


@pytest.mark.parametrize("kind", ["dingtalk", "feishu"])
async def test_a_clock_that_is_wrong_by_hours_is_found_out(kind: str) -> None:
    judge, make, _ = KINDS[kind]
    receiver = WebhookReceiver(judge)
    async with receiver.listening() as url:
        channel = make(url)
        channel._now = lambda: time.time() - 2 * 3600
        with pytest.raises(PushError, match="code"):
            await channel.send(NEWS)


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'{"errcode":"0"}'])
async def test_an_answer_that_is_not_the_service_s_is_no_success(body: bytes) -> None:
    receiver = WebhookReceiver(lambda *_: receivers.ok(body))
    async with receiver.listening() as url:
        with pytest.raises(PushError):
            await WeCom(client(url), f"{url}/x?key=1").send(NEWS)


async def test_slack_gets_its_signs_escaped() -> None:
    receiver = WebhookReceiver(receivers.slack())
    async with receiver.listening() as url:
        await KINDS["slack"][1](url).send(NEWS)
    text = receiver.bodies[0]["blocks"][0]["text"]["text"]
    assert "a&lt;b is used by 91% &amp; more" in text


async def test_the_plain_webhook_says_all_of_each_alert() -> None:
    receiver = WebhookReceiver(receivers.standard_webhook(HOOK_SECRET))
    async with receiver.listening() as url:
        await KINDS["webhook"][1](url).send(NEWS)
    (event,) = receiver.bodies
    assert event["type"] == "alerts.changed"
    assert event["data"]["alerts"][0] == {
        "name": "GpuBusy",
        "key": "GpuBusy{}",
        "state": "warning",
        "text": "GPU 0 of a<b is used by 91% & more.",
        "since": "2023-11-14T22:13:20Z",
        "runbook": "r#gpu",
    }


async def test_an_unsigned_robot_gets_no_signature() -> None:
    receiver = WebhookReceiver(lambda *_: receivers.said(errcode=0, code=0))
    async with receiver.listening() as url:
        await DingTalk(client(url), f"{url}/robot/send?access_token=t").send(NEWS)
        await Feishu(client(url), f"{url}/hook").send(NEWS)
    assert receiver.server.paths == ["/robot/send?access_token=t", "/hook"]
    assert set(receiver.bodies[1]) == {"msg_type", "content"}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of 127.0.0.1 with its key, which is its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mail.test")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    file = tmp_path_factory.mktemp("tls") / "mail.pem"
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return file


def mail_server(certificate: Path, **more: object) -> SmtpReceiver:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    return SmtpReceiver(tls, "forebay", "pass word", **more)


def mail(server: SmtpReceiver, ca: Path | None, **more: object) -> Mail:
    how = "tls" if server.implicit else "starttls"
    told = {"user": "forebay", "password": "pass word"} | more
    to = ("ops@example.com", "night@example.com")
    return Mail(
        MailServer(
            "127.0.0.1", server.port, how, "forebay@example.com", to,
            ca_file=None if ca is None else str(ca), **told,
        )
    )  # fmt: skip


@pytest.mark.parametrize("implicit", [False, True])
async def test_mail_goes_signed_in_and_over_tls(certificate: Path, implicit: bool) -> None:
    async with mail_server(certificate, implicit=implicit).listening() as server:
        await mail(server, certificate).send(NEWS)
    ((sender, recipients, raw),) = server.mails
    assert sender.startswith("FROM:<forebay@example.com>")
    assert recipients == ["TO:<ops@example.com>", "TO:<night@example.com>"]
    message = email.message_from_bytes(raw, policy=email.policy.default)
    assert message["Subject"] == NEWS.title
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Date"]
    assert "磁盘使用率为 95%。" in message.get_content()
    assert not any(b"AUTH" in line or b"MAIL" in line for line in server.in_the_open)


Wrong = Callable[[SmtpReceiver, Path], Awaitable[None]]


async def test_a_mail_server_of_another_s_certificate_gets_nothing(certificate: Path) -> None:
    async with mail_server(certificate).listening() as server:
        with pytest.raises(PushError, match="SSLCertVerificationError"):
            await mail(server, None).send(NEWS)
    assert server.mails == []
    assert not any(b"AUTH" in line for line in server.in_the_open)


async def test_a_wrong_password_is_told_without_it(certificate: Path) -> None:
    async with mail_server(certificate).listening() as server:
        with pytest.raises(PushError) as caught:
            await mail(server, certificate, password="guess").send(NEWS)
    assert "535" in str(caught.value)
    assert "guess" not in str(caught.value)


async def test_a_recipient_that_is_refused_is_no_success(certificate: Path) -> None:
    async with mail_server(certificate, unknown=frozenset({"night"})).listening() as server:
        with pytest.raises(PushError, match="1 of the recipients"):
            await mail(server, certificate).send(NEWS)
    assert len(server.mails) == 1  # the other one has it


async def test_a_mail_server_that_is_away_is_told(certificate: Path) -> None:
    server = mail_server(certificate)
    async with server.listening():
        pass
    with pytest.raises(PushError, match="ConnectionRefusedError"):
        await mail(server, certificate).send(NEWS)


def test_a_server_s_password_is_in_no_text(certificate: Path) -> None:
    server = MailServer("h", 25, "tls", "a@b", ("c@d",), "user", "pass word")
    assert "pass word" not in repr(server)


@given(st.lists(st.text(), max_size=20), st.integers(3, 5000))
def test_a_text_is_cut_at_a_character_and_never_too_long(lines: list[str], most: int) -> None:
    lines = [line.encode(errors="ignore").decode() for line in lines]
    text = clipped(lines, most)
    assert len(text.encode()) <= most
    assert "\n".join(lines).startswith(text.removesuffix("…")) or text == "\n".join(lines)


def test_of_too_many_alerts_the_number_is_told() -> None:
    lines = HUGE.lines()
    assert len(lines) == 2 * MOST_ITEMS + 1
    assert lines[-1] == f"and {50 - MOST_ITEMS} more"
    assert HUGE.title == "[f] 50 firing, 0 resolved"
