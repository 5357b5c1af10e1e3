from __future__ import annotations

import asyncio
import gzip
import shutil
import ssl
import subprocess
import time
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Sequence
from ipaddress import ip_address
from pathlib import Path

import pytest

from forebay.outbound.addresses import Address, parse_address
from forebay.outbound.client import Bounds, SafeClient
from forebay.outbound.dial import in_turn
from forebay.outbound.errors import (
    AddressRefusedError,
    BrokenAnswerError,
    ConnectFailedError,
    NameUnknownError,
    OutboundError,
    TimedOutError,
    TlsFailedError,
    TooLargeError,
    TooManyRedirectsError,
    UrlRefusedError,
)
from forebay.outbound.reach import Reach
from forebay.outbound.resolver import SystemResolver
from tests.outbound.raw_server import RawServer, leads_to, ok


class Names:
    """A resolver of the test's own. A name with several turns changes from one asking to the next;
    each turn is a list of addresses."""

    def __init__(self, **turns: Sequence[str]) -> None:
        self.turns = {name.replace("_", "."): list(turn) for name, turn in turns.items()}
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[Address]:
        self.asked.append(host)
        turns = self.turns.get(host)
        if not turns:
            raise NameUnknownError("The host's name is not known.")
        turn = turns.pop(0) if len(turns) > 1 else turns[0]
        return [ip_address(one) for one in turn.split()]


@pytest.fixture
async def server() -> AsyncIterator[RawServer]:
    async with RawServer().listening() as server:
        yield server


def client_for(
    server: RawServer, names: Names | None = None, allow: Sequence[str] = ("127.0.0.1",), **bounds
) -> SafeClient:
    reach = Reach.from_words(allow, [80, 443, server.port])
    return SafeClient(reach, Bounds(**bounds), names)


def url_of(server: RawServer, path: str = "/", host: str = "127.0.0.1") -> str:
    return f"http://{host}:{server.port}{path}"


async def test_a_server_inside_is_reached_only_when_the_operator_says_so(server: RawServer) -> None:
    server.other = ok(b"secret")
    with pytest.raises(AddressRefusedError):
        await client_for(server, allow=()).get(url_of(server))
    names = Names(hooks_example=["127.0.0.1"])
    with pytest.raises(AddressRefusedError):
        await client_for(server, names, allow=()).get(url_of(server, host="hooks.example"))
    assert server.connections == 0

    assert (await client_for(server).get(url_of(server))).body == b"secret"
    by_name = client_for(server, names, allow=["hooks.example"])
    assert (await by_name.get(url_of(server, host="hooks.example"))).body == b"secret"
    assert server.asked[-1][1]["host"] == f"hooks.example:{server.port}"


async def test_the_systems_own_name_for_loopback_is_refused_by_its_address(
    server: RawServer,
) -> None:
    # the form is let through here, so that what stops it is the address that was resolved
    client = client_for(server, allow=["10.0.0.0/8"])
    with pytest.raises(AddressRefusedError):
        await client.get(url_of(server, host="localhost"))
    assert server.connections == 0


async def test_a_name_that_changes_between_look_and_dial_is_dialled_where_it_was_looked_at(
    server: RawServer,
) -> None:
    server.other = ok()
    names = Names(hooks_example=["127.0.0.1", "169.254.169.254", "10.0.0.1"])
    await client_for(server, names).get(url_of(server, host="hooks.example"))
    assert names.asked == ["hooks.example"]
    # the next request looks again, and sees the turn
    with pytest.raises(AddressRefusedError):
        await client_for(server, names).get(url_of(server, host="hooks.example"))
    assert server.connections == 1


@pytest.mark.parametrize("turn", ["8.8.8.8 127.0.0.1", "::ffff:127.0.0.1", "64:ff9b::7f00:1"])
async def test_one_address_inside_is_enough_to_refuse_a_name(server: RawServer, turn: str) -> None:
    names = Names(hooks_example=[turn])
    with pytest.raises(AddressRefusedError):
        await client_for(server, names, allow=()).get(url_of(server, host="hooks.example"))
    assert server.connections == 0


async def test_the_next_address_is_tried_when_one_does_not_answer(server: RawServer) -> None:
    server.other = ok()
    names = Names(hooks_example=["127.0.0.9 127.0.0.1"])
    client = client_for(server, names, allow=["127.0.0.0/8"])
    assert (await client.get(url_of(server, host="hooks.example"))).status == 200
    nobody = Names(hooks_example=["127.0.0.9 127.0.0.8"])
    with pytest.raises(ConnectFailedError):
        await client_for(server, nobody, allow=["127.0.0.0/8"]).get(
            url_of(server, host="hooks.example")
        )


def test_families_take_turns() -> None:
    words = ["2a00::1", "2a00::2", "2a00::3", "1.1.1.1", "1.1.1.2"]
    order = in_turn([address for word in words if (address := parse_address(word))])
    assert [address.version for address in order] == [6, 4, 6, 4, 6]


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.2:{port}/inside",
        "http://127.0.0.2/inside",
        "http://169.254.169.254/latest/meta-data/",
        "http://[::1]:{port}/inside",
        "http://[::ffff:127.0.0.2]:{port}/inside",
        "http://2130706434:{port}/inside",
        "http://inside.example:{port}/inside",
        "http://127.0.0.1:1/inside",
        "http://user:pw@127.0.0.1:{port}/inside",
        "//127.0.0.2:{port}/inside",
        "file:///etc/passwd",
        "http://[",
        "\\\\127.0.0.2\\inside",
    ],
)
async def test_a_redirect_inwards_is_refused_at_its_hop(server: RawServer, location: str) -> None:
    server.answers["/"] = leads_to(location.format(port=server.port))
    names = Names(inside_example=["127.0.0.2"])
    inside = RawServer(other=ok(b"secret"), port=server.port)
    async with inside.listening("127.0.0.2"):
        with pytest.raises(OutboundError) as refused:
            await client_for(server, names, redirects=5).get(url_of(server))
    assert isinstance(refused.value, AddressRefusedError | UrlRefusedError)
    assert inside.connections == 0
    assert server.paths == ["/"]


async def test_redirects_are_followed_as_far_as_allowed_and_headers_stay_at_home(
    server: RawServer,
) -> None:
    server.answers = {
        "/1": leads_to("/2"),
        "/2": leads_to(f"http://other.example:{server.port}/3", 307),
        "/3": ok(b"there"),
    }
    names = Names(other_example=["127.0.0.1"])
    reply = await client_for(server, names, redirects=2).get(url_of(server, "/1"), {"X-Key": "k"})
    assert reply.body == b"there"
    assert reply.url == f"http://other.example:{server.port}/3"
    assert ["x-key" in headers for _, headers, _ in server.asked] == [True, True, False]
    with pytest.raises(TooManyRedirectsError):
        await client_for(server, names, redirects=1).get(url_of(server, "/1"))
    off = await client_for(server, names).get(url_of(server, "/1"))
    assert off.status == 302


async def test_a_post_follows_nothing(server: RawServer) -> None:
    server.other = leads_to("/elsewhere", 307)
    reply = await client_for(server, redirects=5).post(url_of(server), {"X-A": "b"}, b"body")
    assert reply.status == 307
    line, headers, body = server.asked[0]
    assert line == "POST / HTTP/1.1"
    assert (headers["x-a"], headers["content-length"], body) == ("b", "4", b"body")
    assert headers["user-agent"].startswith("Forebay/")
    assert server.connections == 1


async def test_an_answer_in_drops_ends_with_the_time(server: RawServer) -> None:
    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    async def drip_head(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nX: ")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    async def silence(_: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    server.answers = {"/body": drip, "/head": drip_head, "/silence": silence}
    for path in server.answers:
        with pytest.raises(TimedOutError):
            await client_for(server, total_s=0.5).get(url_of(server, path))


async def test_a_lookup_that_hangs_ends_with_the_time() -> None:
    async def hang(_host: str, _port: int) -> Sequence[Address]:
        await asyncio.sleep(60)
        return []

    client = SafeClient(Reach(), Bounds(total_s=0.2), hang)
    with pytest.raises(TimedOutError):
        await client.get("https://hooks.example/")


@pytest.mark.parametrize("path", ["/length", "/chunks", "/endless"])
async def test_a_body_is_cut_off_at_its_cap(server: RawServer, path: str) -> None:
    sent = 0

    async def endless(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()
            sent += 65536

    chunks = b"".join(b"1\r\nx\r\n" for _ in range(100_001)) + b"0\r\n\r\n"
    server.answers = {
        "/length": ok(b"x" * 100_001),
        "/chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks,
        "/endless": endless,
    }
    with pytest.raises(TooLargeError):
        await client_for(server, body_bytes=100_000).get(url_of(server, path))
    assert sent < 20 * 2**20
    exact = client_for(server, body_bytes=100_001)
    if path != "/endless":
        assert len((await exact.get(url_of(server, path))).body) == 100_001


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_bomb_is_never_unpacked(server: RawServer, encoding: str) -> None:
    pack = gzip.compress if encoding == "gzip" else zlib.compress
    bomb, small = pack(b"0" * (64 * 2**20)), pack(b"small")
    server.answers = {
        "/bomb": ok(bomb, Content_Encoding=encoding),
        "/small": ok(small, Content_Encoding=encoding),
        "/cut": ok(small[:-6], Content_Encoding=encoding),
        "/not": ok(b"not packed at all", Content_Encoding=encoding),
    }
    client = client_for(server, body_bytes=2**20)
    tracemalloc.start()
    try:
        with pytest.raises(TooLargeError):
            await client.get(url_of(server, "/bomb"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * 2**20
    assert (await client.get(url_of(server, "/small"))).body == b"small"
    for path in ("/cut", "/not"):
        with pytest.raises(BrokenAnswerError):
            await client.get(url_of(server, path))


async def test_an_encoding_that_was_not_asked_for_is_refused(server: RawServer) -> None:
    server.other = ok(b"x", Content_Encoding="br")
    with pytest.raises(BrokenAnswerError):
        await client_for(server).get(url_of(server))
    assert server.asked[0][1]["accept-encoding"] == "identity"


async def _header_after_header(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    for number in range(10**9):
        writer.write(b"X-%d: y\r\n" % number)
        await writer.drain()


async def _one_long_header(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        writer.write(b"x" * 4096)
        await writer.drain()


async def _preliminary_answers(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n" * 100)
        await writer.drain()


@pytest.mark.parametrize("head", [_header_after_header, _one_long_header, _preliminary_answers])
async def test_a_head_without_end_is_cut_off(server: RawServer, head) -> None:
    server.other = head
    with pytest.raises(TooLargeError):
        await client_for(server).get(url_of(server))


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
        b"-ERR unknown command\r\n",
    ],
)
async def test_what_is_no_answer_is_an_error_that_repeats_nothing_of_it(
    server: RawServer, answer: bytes
) -> None:
    server.other = answer
    with pytest.raises(BrokenAnswerError) as error:
        await client_for(server).get(url_of(server))
    assert str(error.value) == "The host's answer broke off, or is not HTTP."


async def test_messages_name_no_address(server: RawServer) -> None:
    names = Names(hooks_example=["10.11.12.13"], gone_example=["127.0.0.1"])
    free = server.port
    messages = []
    for host, allow in (("hooks.example", ()), ("gone.example", ["127.0.0.1"]), ("no.example", ())):
        client = SafeClient(Reach.from_words(allow, [free, 1]), Bounds(total_s=5), names)
        with pytest.raises(OutboundError) as error:
            await client.get(f"http://{host}:1/")
        messages.append(str(error.value))
    assert not any("10.11" in message or "127.0" in message for message in messages)
    assert len(set(messages)) == 3


async def test_proxies_of_the_environment_are_ignored(
    server: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.other = ok(b"direct")
    proxy = RawServer(other=ok(b"through the proxy"))
    async with proxy.listening():
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        reply = await client_for(server).get(url_of(server))
    assert reply.body == b"direct"
    assert proxy.connections == 0


async def test_only_so_many_connections_are_open_at_once(server: RawServer) -> None:
    at_once, most = 0, 0

    async def slow(writer: asyncio.StreamWriter) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.05)
        at_once -= 1
        writer.write(ok())
        await writer.drain()

    server.other = slow
    client = client_for(server, connections=3)
    replies = await asyncio.gather(*(client.get(url_of(server)) for _ in range(12)))
    assert [reply.status for reply in replies] == [200] * 12
    assert most == 3


async def test_giving_up_in_the_middle_leaves_the_place_free(server: RawServer) -> None:
    async def silence(_: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    server.answers = {"/silence": silence, "/": ok()}
    client = client_for(server, connections=1)
    for _ in range(3):
        asking = asyncio.create_task(client.get(url_of(server, "/silence")))
        await asyncio.sleep(0.05)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    assert (await client.get(url_of(server))).status == 200


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    if shutil.which("openssl") is None:
        pytest.skip("a certificate is made with openssl")
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-keyout", str(key), "-out", str(cert), "-subj", "/CN=hooks.example"]
    command += ["-addext", "subjectAltName=DNS:hooks.example"]
    subprocess.run(command, check=True, capture_output=True)
    return key, cert


async def test_tls_goes_by_the_name_although_an_address_is_dialled(
    certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    key, cert = certificate
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(cert, key)
    wanted: list[str | None] = []
    tls.sni_callback = lambda _socket, name, _context: wanted.append(name)
    names = Names(hooks_example=["127.0.0.1"], other_example=["127.0.0.1"])
    async with RawServer(other=ok(b"over tls")).listening(tls=tls) as server:
        url = f"https://hooks.example:{server.port}/"
        with pytest.raises(TlsFailedError):
            await client_for(server, names).get(url)  # signed by nobody it knows
        monkeypatch.setenv("SSL_CERT_FILE", str(cert))
        client = client_for(server, names)
        assert (await client.get(url)).body == b"over tls"
        assert wanted[-1] == "hooks.example"
        with pytest.raises(TlsFailedError):
            await client.get(f"https://other.example:{server.port}/")
        with pytest.raises(TlsFailedError):
            await client.get(f"https://127.0.0.1:{server.port}/")


async def test_a_redirect_from_https_to_http_is_not_followed(
    certificate: tuple[Path, Path], server: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, cert = certificate
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(cert, key)
    monkeypatch.setenv("SSL_CERT_FILE", str(cert))
    names = Names(hooks_example=["127.0.0.1"])
    async with RawServer(other=leads_to(url_of(server))).listening(tls=tls) as secure:
        reach = Reach.from_words(["127.0.0.1"], [server.port, secure.port])
        with pytest.raises(UrlRefusedError):
            await SafeClient(reach, Bounds(redirects=3), names).get(
                f"https://hooks.example:{secure.port}/"
            )
    assert server.connections == 0


async def test_the_systems_resolver_finds_names_and_says_when_there_is_none() -> None:
    resolver = SystemResolver()
    found = await resolver("localhost", 80)
    assert {str(address) for address in found} <= {"127.0.0.1", "::1"}
    assert found
    with pytest.raises(NameUnknownError):
        await resolver("no-such-name.invalid", 80)


async def test_lookups_that_hang_are_bounded_and_hold_up_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started = []

    def hang(host: str, *_: object, **__: object) -> list[object]:
        started.append(host)
        time.sleep(0.5)
        raise OSError

    monkeypatch.setattr("socket.getaddrinfo", hang)
    resolver = SystemResolver(lookups=2)
    asking = [asyncio.create_task(resolver(f"{n}.example", 80)) for n in range(4)]
    await asyncio.sleep(0.2)
    for task in asking[:2]:
        task.cancel()
    await asyncio.sleep(0.1)
    assert started == ["0.example", "1.example"]  # a caller that gives up does not free the thread
    ended = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(one) for one in ended] == [asyncio.CancelledError] * 2 + [NameUnknownError] * 2
