"""Clients that are slow, many, or without end: each is bounded, and nobody else is hurt."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st

from forebay.api.connections.crowd import Crowd, home_of
from forebay.api.connections.joined import JoinedWrites
from forebay.api.connections.protocol import ConnectionBounds, bounded_protocol
from forebay.core.errors import ForebayError
from forebay.core.neighbours import Neighbours, shared_counts
from tests.api.door import eventually

BOUNDS = ConnectionBounds(
    header_s=0.4,
    header_bytes=4096,
    receive_s=0.4,
    send_s=0.5,
    connections=12,
    connections_of_one=10,
)
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LARGE = 32 * 2**20


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the body's size; /large: with many bytes; /deaf: without reading the body."""
    size = 0
    more = scope["path"] != "/deaf"
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size += len(message["body"])
        more = message["more_body"]
    text = b"x" * LARGE if scope["path"] == "/large" else str(size).encode()
    length = (b"content-length", str(len(text)).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": text})


@asynccontextmanager
async def served(
    bounds: ConnectionBounds = BOUNDS, application: Any = app
) -> AsyncIterator[tuple[int, uvicorn.Server, list[str]]]:
    refused: list[str] = []

    def tell(error: ForebayError) -> None:
        refused.append(error.code)

    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    config = uvicorn.Config(
        application,
        log_config=None,
        lifespan="off",
        access_log=False,
        http=bounded_protocol(bounds, tell),
        timeout_keep_alive=1,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    await eventually(lambda: server.started)
    try:
        yield listener.getsockname()[1], server, refused
    finally:
        server.should_exit = True
        await serving


async def answer_to(port: int, *parts: bytes, pause_s: float = 0.0) -> bytes:
    """Return everything that the server says, until it closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    heard = bytearray()

    async def hear() -> None:
        while part := await reader.read(65536):
            heard.extend(part)

    reading = asyncio.create_task(hear())
    try:
        for part in parts:
            if reading.done():
                break
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause_s)
    except ConnectionError:
        pass  # it has ended the connection; what it had said may still be there
    try:
        async with asyncio.timeout(20):
            await reading
    except ConnectionError:
        pass
    finally:
        writer.close()
    return bytes(heard)


def status_and_code(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"connection: close" in head.lower()
    return int(head.split()[1]), json.loads(body)["error"]["code"]


async def test_headers_that_drip_are_refused_in_time() -> None:
    async with served() as (port, server, refused):
        drips = [GET[i : i + 1] for i in range(20)]
        answer = await answer_to(port, *drips, pause_s=0.1)
        assert status_and_code(answer) == (408, "headers_too_slow")
        assert refused == ["headers_too_slow"]
        await eventually(lambda: not server.server_state.connections)


async def test_who_says_nothing_is_let_go_without_a_word() -> None:
    async with served() as (port, server, refused):
        assert await answer_to(port) == b""
        assert refused == []
        await eventually(lambda: not server.server_state.connections)


async def test_line_ends_before_a_request_do_not_keep_a_connection() -> None:
    async with served() as (port, _, _):
        answer = await answer_to(port, *[b"\r\n"] * 30, pause_s=0.1)
        assert status_and_code(answer) == (408, "headers_too_slow")


@pytest.mark.parametrize(
    "parts",
    [
        [b"GET / HTTP/1.1\r\n", *[b"X-%d: y\r\n" % i for i in range(1000)]],
        [b"GET / HTTP/1.1\r\nX: ", *[b"y" * 500] * 20],
        [b"GET /", *[b"y" * 500] * 20],
        [b"GET / HTTP/1.1\r\nX: " + b"y" * 5000 + b"\r\n\r\n"],
        [b"GET /" + b"y" * 200_000 + b" HTTP/1.1\r\n\r\n"],
    ],
    ids=["many", "one without end", "a path without end", "at once", "a path at once"],
)
async def test_headers_over_the_limit_are_refused(parts: list[bytes]) -> None:
    async with served() as (port, server, refused):
        assert status_and_code(await answer_to(port, *parts)) == (431, "headers_too_large")
        assert refused == ["headers_too_large"]
        await eventually(lambda: not server.server_state.connections)


async def test_headers_are_counted_for_each_request_of_a_connection() -> None:
    async with served() as (port, _, refused):
        asked = b"GET / HTTP/1.1\r\nX: " + b"y" * 3000 + b"\r\n\r\n"
        last = asked.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        answer = await answer_to(port, asked, asked + asked, last, pause_s=0.05)
        assert answer.count(b"HTTP/1.1 200") == 4
        assert refused == []


async def test_headers_that_come_in_parts_are_not_counted_twice() -> None:
    patient = replace(BOUNDS, header_s=20)  # it is about bytes
    async with served(patient) as (port, _, refused):
        headers = [b"X-%d: " % i + b"y" * 340 + b"\r\n" for i in range(10)]
        parts = [b"GET / HTTP/1.1\r\n", *headers, b"Connection: close\r\n\r\n"]
        answer = await answer_to(port, *parts, pause_s=0.02)
        assert answer.startswith(b"HTTP/1.1 200")
        assert refused == []


async def test_a_body_larger_than_the_header_limit_is_no_header() -> None:
    async with served() as (port, _, _):
        head = b"POST / HTTP/1.1\r\nContent-Length: 100000\r\nConnection: close\r\n\r\n"
        answer = await answer_to(port, head + b"x" * 50_000, b"x" * 50_000)
        assert answer.endswith(b"100000")


async def test_a_body_that_drips_to_a_deaf_application_ends_with_its_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("forebay.api.connections.protocol._GRACE_S", 0.2)
    async with served() as (port, server, _):
        head = b"POST /deaf HTTP/1.1\r\nContent-Length: 1000\r\n\r\n"
        answer = await answer_to(port, head, *[b"x"] * 50, pause_s=0.1)
        assert answer.startswith(b"HTTP/1.1 200") or answer == b""
        await eventually(lambda: not server.server_state.connections)


async def test_a_large_body_may_take_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forebay.api.connections.protocol._GRACE_S", 0.0)
    async with served() as (port, _, _):
        head = b"POST / HTTP/1.1\r\nContent-Length: 1600000\r\nConnection: close\r\n\r\n"
        answer = await answer_to(port, head, *[b"x" * 100_000] * 16, pause_s=0.1)
        assert answer.endswith(b"1600000")


async def test_an_answer_that_nobody_reads_ends_with_its_connection() -> None:
    async with served() as (port, server, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(GET.replace(b"/ ", b"/large "))
        await eventually(lambda: server.server_state.connections)
        await eventually(lambda: not server.server_state.connections)
        await eventually(lambda: not server.server_state.tasks)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(LARGE)
        writer.close()


async def test_connections_of_one_address_are_bounded_and_one_that_ends_makes_room() -> None:
    async with served() as (port, server, refused):
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(10)]
        await eventually(lambda: len(server.server_state.connections) == 10)
        assert status_and_code(await answer_to(port, GET)) == (429, "too_many_connections")
        assert refused == ["too_many_connections"]
        held.pop()[1].close()
        await eventually(lambda: len(server.server_state.connections) == 9)
        async with httpx.AsyncClient(trust_env=False) as http:
            assert (await http.get(f"http://127.0.0.1:{port}/")).status_code == 200
        for _, writer in held:
            writer.close()


async def test_all_connections_together_are_bounded() -> None:
    async with served(replace(BOUNDS, connections=3)) as (port, server, _):
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        await eventually(lambda: len(server.server_state.connections) == 3)
        assert status_and_code(await answer_to(port, GET)) == (503, "door_full")
        for _, writer in held:
            writer.close()


async def test_what_is_no_http_is_refused_in_the_form_of_all_errors() -> None:
    async with served() as (port, _, refused):
        answer = await answer_to(port, b"\x16\x03\x01 hello\r\n\r\n")
        assert status_and_code(answer) == (400, "invalid_request")
        assert refused == ["invalid_request"]


@pytest.mark.parametrize(
    "codings",
    [
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"transfer-encoding:\tDeflate ,chunked\r\n",
        b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: gzip\r\n",
        b"Transfer-Encoding: identity, chunked\r\n",
    ],
)
async def test_a_transfer_coding_that_is_not_undone_is_refused_before_the_body(
    codings: bytes,
) -> None:
    asked: list[str] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope["path"])
        await app(scope, receive, send)

    async with served(application=application) as (port, server, refused):
        head = b"POST / HTTP/1.1\r\nHost: a\r\n" + codings
        answer = await answer_to(port, head + b"\r\n5\r\nhello\r\n0\r\n\r\n" + GET)
        assert status_and_code(answer) == (501, "unknown_transfer_coding")
        assert answer.count(b"HTTP/1.1 ") == 1  # what follows is not taken for a request
        waits = head + b"Expect: 100-continue\r\n\r\n"
        assert status_and_code(await answer_to(port, waits)) == (501, "unknown_transfer_coding")
        assert refused == ["unknown_transfer_coding"] * 2
        assert asked == []
        await eventually(lambda: not server.server_state.connections)


@pytest.mark.parametrize(
    "codings", [b"chunked, chunked", b"chunked, gzip", b"chunked\r\nContent-Length: 5"]
)
async def test_a_body_whose_end_cannot_be_known_is_refused(codings: bytes) -> None:
    async with served() as (port, _, refused):
        head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: " + codings + b"\r\n\r\n"
        answer = await answer_to(port, head + b"5\r\nhello\r\n0\r\n\r\n")
        assert status_and_code(answer) == (400, "invalid_request")
        assert refused == ["invalid_request"]


@pytest.mark.parametrize("coding", [b"chunked", b"Chunked ", b"\tCHUNKED"])
async def test_a_body_in_chunks_alone_is_read(coding: bytes) -> None:
    async with served() as (port, _, refused):
        head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:" + coding + b"\r\n"
        asked = head + b"Connection: close\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
        answer = await answer_to(port, asked)
        assert answer.startswith(b"HTTP/1.1 200")
        assert answer.endswith(b"\r\n\r\n5")
        assert refused == []


async def test_an_upgrade_that_nobody_knows_is_an_ordinary_request() -> None:
    async with served() as (port, server, _):
        asked = GET.replace(b"\r\n\r\n", b"\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
        await answer_to(port, asked)
        await eventually(lambda: not server.server_state.connections)


async def test_a_proxy_that_is_trusted_is_bounded_with_all_only() -> None:
    here = ipaddress.ip_network("127.0.0.0/8")
    bounds = replace(BOUNDS, connections_of_one=1, connections=3, proxies=(here,))
    async with served(bounds) as (port, server, refused):
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        await eventually(lambda: len(server.server_state.connections) == 3)
        assert refused == []
        assert status_and_code(await answer_to(port, GET)) == (503, "door_full")
        for _, writer in held:
            writer.close()


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("abc")), max_size=60))
def test_a_crowd_counts_right(events: list[tuple[bool, str]]) -> None:
    crowd = Crowd(most=5, most_of_one=3)
    inside: list[str] = []
    for comes, address in events:
        if comes:
            inside.append(address)
            fault = crowd.enter(address)
            too_many = inside.count(address) > 3
            assert (fault is None) == (not too_many and len(inside) <= 5)
            assert fault is None or (fault.code == "too_many_connections") == too_many
        elif address in inside:
            inside.remove(address)
            crowd.leave(address)
        assert crowd.now == len(inside)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 1), st.sampled_from("abc")), max_size=60))
def test_crowds_of_two_processes_are_bounded_together(events: list[tuple[bool, int, str]]) -> None:
    with shared_counts(2) as file:
        crowds = [
            Crowd(most=5, most_of_one=3, neighbours=Neighbours(file.fileno(), row, 2))
            for row in range(2)
        ]
        inside: list[tuple[int, str]] = []
        for comes, row, address in events:
            if comes:
                inside.append((row, address))
                fault = crowds[row].enter(address)
                too_many = sum(one == address for _, one in inside) > 3
                assert (fault is None) == (not too_many and len(inside) <= 5)
                assert fault is None or (fault.code == "too_many_connections") == too_many
            elif (row, address) in inside:
                inside.remove((row, address))
                crowds[row].leave(address)
            assert [one.in_all for one in crowds] == [len(inside)] * 2


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::2:3:4:5", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("", "", True),
    ],
)
def test_an_ipv6_client_cannot_choose_many_addresses(one: str, other: str, same: bool) -> None:
    assert (home_of(one) == home_of(other)) == same


class Written:
    """A transport that notes each write."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.writes.append(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


async def test_a_response_is_one_write_and_a_streams_head_does_not_wait() -> None:
    whole, stream, empty = Written(), Written(), Written()
    loop = asyncio.get_running_loop()
    joined = JoinedWrites(whole, loop)  # type: ignore[arg-type]
    joined.write(b"head ")
    joined.write(b"body")
    joined.close()
    assert whole.writes == [b"head body"]
    assert whole.closed
    joined = JoinedWrites(stream, loop)  # type: ignore[arg-type]
    joined.write(b"head")
    await asyncio.sleep(0)
    assert stream.writes == [b"head"]
    joined.write(b"first")
    joined.write(b"second")
    assert stream.writes == [b"head", b"first", b"second"]
    joined = JoinedWrites(empty, loop)  # type: ignore[arg-type]
    joined.write(b"head")
    joined.close()
    await asyncio.sleep(0)
    assert empty.writes == [b"head"]


async def test_what_is_held_is_not_written_to_a_connection_that_is_gone() -> None:
    gone = Written()
    joined = JoinedWrites(gone, asyncio.get_running_loop())  # type: ignore[arg-type]
    joined.write(b"head")
    gone.close()
    await asyncio.sleep(0)
    assert gone.writes == []


async def test_trailers_are_no_headers() -> None:
    """What stands in front has judged the headers: nothing may be added to them afterwards."""
    seen: list[list[bytes]] = []

    async def tells(scope: Any, receive: Any, send: Any) -> None:
        await app(scope, receive, send)
        seen.append([name for name, _ in scope["headers"]])

    async with served(application=tells) as (port, _, _):
        answer = await answer_to(
            port,
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
            b"3\r\nabc\r\n0\r\nX-Forwarded-For: 10.0.0.1\r\nAuthorization: Bearer b\r\n\r\n",
        )
    assert answer.startswith(b"HTTP/1.1 200")
    assert seen == [[b"host", b"transfer-encoding", b"connection"]]


class _Endless:
    """An application that streams until it hears that its client has gone."""

    def __init__(self) -> None:
        self.streaming = asyncio.Event()
        self.ended = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] != "/stream":
            await app(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        self.streaming.set()
        listening = asyncio.create_task(self._gone(receive))
        while not listening.done():
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            await asyncio.sleep(0.01)
        self.ended.set()

    async def _gone(self, receive: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass


async def test_a_stream_ends_with_its_connection_though_more_was_asked_behind_it() -> None:
    endless = _Endless()
    async with served(application=endless) as (port, _, _):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n" + GET)
        async with asyncio.timeout(20):
            await endless.streaming.wait()
            writer.transport.abort()
            await endless.ended.wait()


async def test_a_refusal_is_not_taken_for_the_answer_to_an_earlier_request() -> None:
    """What follows two requests is no HTTP: they are answered, and the connection ends."""
    async with served() as (port, _, refused):
        answer = await answer_to(port, GET + GET + b"nonsense\r\n\r\n")
    assert answer.count(b"HTTP/1.1 200") == 2
    assert b"HTTP/1.1 400" not in answer
    assert refused == ["invalid_request"]


async def test_a_refusal_is_not_written_into_an_earlier_answer() -> None:
    endless = _Endless()
    async with served(application=endless) as (port, _, refused):
        begun = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        stream = b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n"
        answer = await answer_to(port, stream + begun + b"no length\r\n")
        assert b"HTTP/1.1 400" not in answer
        assert refused == ["invalid_request"]
        async with asyncio.timeout(20):
            await endless.ended.wait()


async def test_a_head_alone_is_written_before_a_server_that_stops_closes() -> None:
    async def stops(scope: Any, receive: Any, send: Any) -> None:
        await app(scope, receive, send)
        for connection in list(server.server_state.connections):
            connection.shutdown()

    async with served(application=stops) as (port, server, _):
        answer = await answer_to(port, b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200")
