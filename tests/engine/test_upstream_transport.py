"""What the network and the layers under an answer can do to the upstream engine."""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

from forebay.core.events import Finished, Returned
from forebay.core.request import TaskId
from forebay.engine.upstream.engine import ask_once
from forebay.engine.upstream.faults import UnreachableError
from forebay.engine.upstream.transport import Address
from tests.engine.fake_upstream import Exchange, FakeUpstream, delta, refuse, say
from tests.engine.upstream_rig import WAIT_S, accepts, ended, ends, in_front_of, quicken, send


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quicken(monkeypatch)


@pytest.mark.parametrize("location", ["/else", "foo:bar", "http://[", "\x7f", "x" * 70_000, ""])
async def test_a_redirect_is_a_refusal_wherever_it_leads(location: str) -> None:
    server = FakeUpstream(chat=refuse(302, location=location))
    async with in_front_of(server) as engine:
        assert await ended(engine) == Returned(
            TaskId("r"), "the upstream answered HTTP 302", counts=True
        )
        assert len(server.asked) == 1
        await accepts(engine)
        server.chat = say("a")
        assert isinstance(await ended(engine), Finished)


async def test_a_servers_cookies_are_not_kept() -> None:
    """Before many servers a balancer's cookie would tie every request to one of them."""

    async def sweet(exchange: Exchange) -> None:
        await exchange.head(set_cookie=f"node{len(server.seen)}=1; Path=/")
        await exchange.send(delta("a", "stop"))
        await exchange.end()

    server = FakeUpstream(chat=sweet, warm_up=sweet)
    async with in_front_of(server) as engine:
        for _ in range(2):
            assert isinstance(await ended(engine), Finished)
    assert not any("cookie" in one.headers for one in server.seen)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a key and a certificate for 127.0.0.1 that nobody but itself has signed."""
    if shutil.which("openssl") is None:
        pytest.skip("a certificate is made with openssl")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-keyout", "-", "-out", "-", "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1"]
    path.write_bytes(subprocess.run(command, check=True, capture_output=True).stdout)
    return path


def over_tls(server: FakeUpstream, certificate: Path) -> FakeUpstream:
    server.tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.tls.load_cert_chain(certificate)
    return server


async def test_a_certificate_that_is_not_trusted_is_no_server(certificate: Path) -> None:
    server = over_tls(FakeUpstream(), certificate)
    async with server.listening():
        with pytest.raises(UnreachableError, match="CERTIFICATE_VERIFY_FAILED"):
            await ask_once(Address(server.url), WAIT_S)
        with pytest.raises(UnreachableError):  # and one that speaks no TLS at all
            async with FakeUpstream().listening() as plain:
                await ask_once(Address(plain.url.replace("http", "https")), WAIT_S)


async def test_a_server_that_takes_a_connection_and_says_nothing_of_tls_is_unreachable() -> None:
    hung = asyncio.Event()

    async def mute(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await hung.wait()
        writer.close()

    listener = await asyncio.start_server(mute, "127.0.0.1", 0)
    url = f"https://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    with pytest.raises(UnreachableError):
        await ask_once(Address(url, connect_s=0.5), WAIT_S)
    hung.set()
    listener.close()


async def test_a_stream_that_is_spoiled_under_tls_breaks_off_and_the_engine_goes_on(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

    async def spoiled(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.send(delta("a"))
        socket = exchange.writer.get_extra_info("socket")
        os.write(socket.fileno(), b"\x17\x03\x03\x00\x20" + b"x" * 32)  # a record of garbage
        await exchange.gone.wait()

    server = over_tls(FakeUpstream(chat=spoiled), certificate)
    async with in_front_of(server) as engine:
        await send(engine)
        event = (await ends(engine))[-1]
        assert isinstance(event, Returned)
        assert event.counts
        await accepts(engine)
        server.chat = say("a")
        assert isinstance(await ended(engine), Finished)
