"""URLs that lead inside, nowhere, or round in circles; and the host that leads there."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random

from tests.hostile.attack import SECRET, Attack
from tests.hostile.requests import about_picture
from tests.outbound.raw_server import RawServer, leads_to, ok

METADATA = "169.254.169.254"
INSIDE = (
    *(
        "127.0.0.1",
        "localhost",
        "[::1]",
        "0.0.0.0",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
    ),
    *("[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[fe80::1]"),
    *(METADATA, "10.0.0.7", "192.168.1.1", "172.16.9.9", "100.64.0.1", "[fd00::1]", "224.0.0.1"),
    *("localhost.", "LOCALHOST", "①②⑦.⓪.⓪.①", "127.0.0.1.", "metadata.google.internal"),
)
SCHEMES = ("file", "ftp", "gopher", "dict", "ldap", "jar", "php", "ssh", "unix", "javascript", "ws")


@dataclass(frozen=True)
class Hosts:
    """``outside`` is a host that the door may ask, ``trap`` one inside that it may not."""

    outside: RawServer
    trap: RawServer

    def hostile_url(self, rng: Random) -> Attack:
        """Return a request whose picture lies where none may be taken from."""
        make = rng.choice((self._inside, self._scheme, self._tricked, self._led, self._bad_answer))
        url, about = make(rng)
        return Attack("url", about_picture(url, rng), about=about)

    def _inside(self, rng: Random) -> tuple[str, str]:
        host = rng.choice(INSIDE)
        port = rng.choice((80, 443, 6379, 22, self.trap.port, 0, 65536))
        scheme = rng.choice(("http", "https", "HTTP"))
        return f"{scheme}://{host}:{port}/latest/meta-data?key={SECRET}", f"{host}:{port}"

    def _scheme(self, rng: Random) -> tuple[str, str]:
        scheme = rng.choice(SCHEMES)
        return f"{scheme}://127.0.0.1:{self.trap.port}/etc/passwd?key={SECRET}", scheme

    def _tricked(self, rng: Random) -> tuple[str, str]:
        trap, out = f"127.0.0.1:{self.trap.port}", f"127.0.0.1:{self.outside.port}"
        tricks = (
            f"http://{out}@{trap}/",
            f"http://user:{SECRET}@{out}/page",
            f"http://{trap}#@{out}/",
            f"http://{trap}\\@{out}/",
            f"http://{out}\r\nHost: {trap}\r\n/",
            f"http://{trap}%2f@{out}/",
            f"http:///{trap}/",
            f"http:{trap}://",
            f"http://[{out}]/",
            f"http://{out}:{self.trap.port}/",
            f"http://127.0.0.1:{self.trap.port}\t/",
            f"http://{'a' * 3000}.example/",
            f"http://{out}/{'a' * 70_000}",
            "http://",
            "://",
            f"http://%31%32%37.0.0.1:{self.trap.port}/",
        )
        url = rng.choice(tricks)
        return url, url[:60]

    def _led(self, rng: Random) -> tuple[str, str]:
        path = rng.choice([path for path in self.outside.answers if path.startswith("/to-")])
        return f"http://127.0.0.1:{self.outside.port}{path}", path

    def _bad_answer(self, rng: Random) -> tuple[str, str]:
        path = rng.choice([path for path in self.outside.answers if not path.startswith("/to-")])
        return f"http://127.0.0.1:{self.outside.port}{path}", path


async def _endless(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n\xff\xd8\xff")
    while True:
        writer.write(bytes(2**16))
        await writer.drain()


async def _silent(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
    await asyncio.sleep(60)


async def _endless_head(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X-More: " + b"x" * 1000 + b"\r\n")
        await writer.drain()


@asynccontextmanager
async def hosts() -> AsyncIterator[Hosts]:
    """Listen as a host outside that misbehaves, and as one inside that must not be asked."""
    trap = RawServer(other=ok(b"root:x:0:0"))
    outside = RawServer()
    async with trap.listening(), outside.listening():
        inside = f"http://127.0.0.1:{trap.port}/?key={SECRET}"
        here = f"http://127.0.0.1:{outside.port}"
        led = {
            "inside": inside,
            "metadata": f"http://{METADATA}/latest",
            "file": "file:///etc/passwd",
            "private": "http://10.0.0.7/",
            "itself": f"{here}/to-itself",
            "a-circle": f"{here}/to-the-other",
            "the-other": f"{here}/to-a-circle",
            "nowhere": "",
            "noise": "http://[::::",
        }
        outside.answers |= {f"/to-{name}": leads_to(url) for name, url in led.items()}
        outside.answers |= {
            "/page": ok(b"<html>no picture</html>"),
            "/endless": _endless,
            "/endless-head": _endless_head,
            "/silent": _silent,
            "/short": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
            "/huge": b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
            "/error": b"HTTP/1.1 500 Sorry\r\nContent-Length: 6\r\n\r\nsecret",
            "/nothing": ok(b""),
            "/no-http": b"220 mail.example ESMTP\r\n",
            "/squeezed": ok(gzip.compress(bytes(50 * 2**20)), Content_Encoding="gzip"),
        }
        yield Hosts(outside, trap)
