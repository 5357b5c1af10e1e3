"""Pictures by URL: what is kept and for how long, what is shared, what is told to strangers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from forebay.admission.fetch import FetchBounds, PictureFetcher
from forebay.admission.held import HeldBytes
from forebay.core.errors import DoorFullError, ImageUrlError
from forebay.outbound.addresses import Address, parse_address
from forebay.outbound.client import Bounds, SafeClient
from forebay.outbound.errors import NameUnknownError
from forebay.outbound.reach import Reach
from tests.api.door import eventually
from tests.outbound.raw_server import RawServer, leads_to, ok

MOST = 1000
NOT_MODIFIED = b"HTTP/1.1 304 Not Modified\r\nContent-Length: 0\r\n\r\n"
PICTURE = b"a picture's bytes"


class Clock:
    """Time that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Rig:
    """A fetcher in front of a server that says what a test wants."""

    def __init__(self, server: RawServer, **bounds: float) -> None:
        self.server = server
        self.clock = Clock()
        self.held = HeldBytes(10 * MOST)
        reach = Reach.from_words(["127.0.0.1"], [server.port])
        client = SafeClient(reach, Bounds(total_s=5, body_bytes=MOST, redirects=3))
        limits = FetchBounds(**{"most_bytes": MOST, "fresh_s": 60.0, **bounds})
        self.fetcher = PictureFetcher(client, self.held, limits, clock=self.clock)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server.port}{path}"

    async def fetch(self, path: str = "/a") -> bytes:
        try:
            return await self.fetcher.fetch(self.url(path), "image")
        finally:
            assert self.held.now == 0


@pytest.fixture
async def server() -> AsyncIterator[RawServer]:
    async with RawServer({"/a": ok(PICTURE)}).listening() as server:
        yield server


@pytest.fixture
def rig(server: RawServer) -> Rig:
    return Rig(server)


async def test_a_picture_is_kept_while_fresh_and_then_asked_for_anew(rig: Rig) -> None:
    assert await rig.fetch() == await rig.fetch() == PICTURE
    assert rig.server.paths == ["/a"]
    rig.server.answers["/a"] = ok(b"another")
    rig.clock.now = 61
    assert await rig.fetch() == b"another"
    assert rig.server.paths == ["/a", "/a"]


@pytest.mark.parametrize(
    ("given", "asked"),
    [({"ETag": '"v1"'}, ("if-none-match", '"v1"')),
     ({"Last_Modified": "Sat, 21 Nov 2026 10:00:00 GMT"},
      ("if-modified-since", "Sat, 21 Nov 2026 10:00:00 GMT"))],
)  # fmt: skip
async def test_a_picture_that_has_not_changed_is_not_sent_again(
    rig: Rig, given: dict[str, str], asked: tuple[str, str]
) -> None:
    rig.server.answers["/a"] = ok(PICTURE, **given)
    await rig.fetch()
    rig.server.answers["/a"] = NOT_MODIFIED
    rig.clock.now = 61
    assert await rig.fetch() == PICTURE
    name, value = asked
    assert rig.server.asked[1][1][name] == value
    assert name not in rig.server.asked[0][1]
    await rig.fetch()
    assert len(rig.server.asked) == 2, "it is fresh again"


@pytest.mark.parametrize(
    ("control", "asked"),
    [("no-store", 2), ("private", 2), ("no-cache", 2), ("public, max-age=0", 2),
     ("public, max-age=30", 2), ("max-age=999999", 1), ("immutable", 1)],
)  # fmt: skip
async def test_a_host_may_shorten_the_keeping_and_never_lengthen_it(
    rig: Rig, control: str, asked: int
) -> None:
    rig.server.answers["/a"] = ok(PICTURE, Cache_Control=control)
    await rig.fetch()
    rig.clock.now = 40
    await rig.fetch()
    assert len(rig.server.asked) == asked
    rig.clock.now = 101
    await rig.fetch()
    assert len(rig.server.asked) == asked + 1


async def test_what_is_kept_is_bounded_and_the_longest_unused_goes_first(server: RawServer) -> None:
    rig = Rig(server, cache_bytes=25)
    rig.server.answers = {path: ok(path.encode() * 5) for path in ("/a", "/b", "/c")}
    for path in ("/a", "/b", "/a", "/c", "/a", "/b"):
        await rig.fetch(path)
    assert rig.server.paths == ["/a", "/b", "/c", "/b"]


async def test_nothing_is_kept_where_nothing_may_be(server: RawServer) -> None:
    rig = Rig(server, cache_bytes=0)
    await rig.fetch()
    await rig.fetch()
    assert len(rig.server.asked) == 2


async def test_a_picture_that_turned_bad_is_forgotten(rig: Rig) -> None:
    await rig.fetch()
    rig.server.answers["/a"] = rig.server.other
    rig.clock.now = 61
    with pytest.raises(ImageUrlError, match="answered 404"):
        await rig.fetch()
    rig.clock.now = 0
    with pytest.raises(ImageUrlError, match="answered 404"):
        await rig.fetch()


async def test_a_picture_behind_redirects_is_kept_but_not_validated(rig: Rig) -> None:
    rig.server.answers["/b"] = leads_to("/a")
    rig.server.answers["/a"] = ok(PICTURE, ETag='"v1"')
    assert await rig.fetch("/b") == await rig.fetch("/b") == PICTURE
    rig.clock.now = 61
    await rig.fetch("/b")
    assert rig.server.paths == ["/b", "/a", "/b", "/a"]
    assert "if-none-match" not in rig.server.asked[2][1]


async def test_many_requests_for_one_url_are_one_fetch_and_its_failure_is_everyones(
    rig: Rig,
) -> None:
    gate = asyncio.Event()

    async def slowly(writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        writer.write(ok(PICTURE, Cache_Control="no-store"))

    rig.server.answers["/a"] = slowly
    url = rig.url("/a")
    asking = [asyncio.create_task(rig.fetcher.fetch(url, "image")) for _ in range(20)]
    await eventually(lambda: rig.server.asked)
    assert rig.held.now == MOST, "room for the one fetch"
    asking[0].cancel()  # who came first may leave first
    gate.set()
    await asyncio.wait(asking)
    assert [one.result() for one in asking[1:]] == [PICTURE] * 19
    assert len(rig.server.asked) == 1
    rig.server.answers["/a"] = rig.server.other
    asking = [asyncio.create_task(rig.fetcher.fetch(url, f"images.{n}")) for n in range(3)]
    await asyncio.wait(asking)
    assert [one.exception().param for one in asking] == ["images.0", "images.1", "images.2"]
    assert (len(rig.server.asked), rig.held.now) == (2, 0)


async def test_a_fetch_for_which_nobody_waits_any_more_is_given_up(rig: Rig) -> None:

    async def never(writer: asyncio.StreamWriter) -> None:
        del writer
        await asyncio.sleep(60)

    rig.server.answers["/a"] = never
    asking = asyncio.create_task(rig.fetcher.fetch(rig.url("/a"), "image"))
    await eventually(lambda: rig.server.asked)
    asking.cancel()
    await asyncio.wait([asking])
    await eventually(lambda: rig.held.now == 0)


async def test_who_finds_no_place_is_told_to_come_back(server: RawServer) -> None:
    rig = Rig(server, places=1, wait_s=0.05)
    gate = asyncio.Event()

    async def slowly(writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        writer.write(ok(PICTURE))

    rig.server.answers["/slow"] = slowly
    slow = asyncio.create_task(rig.fetcher.fetch(rig.url("/slow"), "image"))
    await eventually(lambda: rig.server.asked)
    with pytest.raises(DoorFullError):
        await rig.fetcher.fetch(rig.url("/a"), "image")
    gate.set()
    assert await slow == await rig.fetch("/a") == PICTURE


async def test_where_there_is_no_room_for_a_picture_none_is_fetched(rig: Rig) -> None:
    with rig.held.hold() as others:
        others.grow_to(10 * MOST - 1)
        with pytest.raises(DoorFullError):
            await rig.fetcher.fetch(rig.url("/a"), "image")
    assert rig.server.connections == 0


class Names:
    """A resolver that knows one name, of a machine inside."""

    async def __call__(self, host: str, port: int) -> Sequence[Address]:
        inside = parse_address("10.0.0.7")
        if host != "db.example.com" or inside is None:
            raise NameUnknownError("The host's name is not known.")
        return [inside]


async def test_a_name_of_a_machine_inside_reads_like_one_that_does_not_exist() -> None:
    client = SafeClient(Reach(), Bounds(), Names())
    fetcher = PictureFetcher(client, HeldBytes(), FetchBounds(most_bytes=MOST))
    told = set()
    for host in ("db.example.com", "nothing.example.com", "10.0.0.7", "169.254.169.254", "[::1]"):
        with pytest.raises(ImageUrlError) as caught:
            await fetcher.fetch(f"http://{host}/a.jpg", "image")
        told.add(caught.value.message)
    assert told == {"the picture was not fetched: the host has no address of the public internet"}
