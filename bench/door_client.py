"""A client that takes next to nothing of the machine: as ``ab``, but for requests that differ.

One thread, one selector, a connection for each request. On a machine of two cores a client of an
event loop's streams takes a third of what the door takes, and bounds what is to be measured.
"""

from __future__ import annotations

import re
import selectors
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

LIMIT_S = 120.0
_READ_BYTES = 64 * 1024
STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})")
LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")


@dataclass(frozen=True, slots=True)
class Reply:
    """What a request got, and when: seconds, ``began`` on this process's clock.

    ``status`` 0: none, ``body`` then has the reason.
    """

    began: float
    seconds: float
    status: int
    body: bytes


def at_once(url: str, requests: Sequence[bytes]) -> list[Reply]:
    """Send every request at the same time."""
    return closed(url, requests, len(requests))


def closed(url: str, requests: Iterable[bytes], concurrency: int) -> list[Reply]:
    """Keep so many requests under way until all are answered."""
    where = urlsplit(url)
    assert where.hostname is not None
    assert where.port is not None
    return _Client((where.hostname, where.port), iter(requests)).run(concurrency)


class _Exchange:
    """One request on its way, and what has come of its answer."""

    def __init__(self, address: tuple[str, int], request: bytes) -> None:
        self.began = time.perf_counter()
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.connect_ex(address)  # what became of it, the first sending tells
        self._left = memoryview(request)
        self._answer = b""

    def send(self) -> bool:
        """Send what the system takes; True when all is sent."""
        self._left = self._left[self.socket.send(self._left) :]
        return not self._left

    def read(self) -> Reply | None:
        """Read what is there; return the answer when it is whole."""
        piece = self.socket.recv(_READ_BYTES)
        self._answer += piece
        head, mark, body = self._answer.partition(b"\r\n\r\n")
        length = LENGTH.search(head)
        if piece and not (mark and length and len(body) >= int(length[1])):
            return None
        status = STATUS.match(head)
        return self.ended(int(status[1]) if status else 0, body if status else b"no answer")

    def ended(self, status: int, body: bytes) -> Reply:
        """Return the reply as of now."""
        return Reply(self.began, time.perf_counter() - self.began, status, body)


class _Client:
    """Sends ``requests`` to ``address``, so many at a time."""

    def __init__(self, address: tuple[str, int], requests: Iterator[bytes]) -> None:
        self._address = address
        self._requests = requests
        self._selector = selectors.DefaultSelector()
        self._replies: list[Reply] = []

    def run(self, concurrency: int) -> list[Reply]:
        with self._selector:
            for _ in range(concurrency):
                self._begin()
            while under_way := self._selector.get_map():
                ready = [key for key, _ in self._selector.select(LIMIT_S)]
                for key in ready:
                    self._go_on(key.data, key.events)
                if not ready:  # nobody answers any more
                    for key in list(under_way.values()):
                        self._end(key.data, key.data.ended(0, b"TimeoutError"))
        return self._replies

    def _begin(self) -> None:
        request = next(self._requests, None)
        if request is not None:
            exchange = _Exchange(self._address, request)
            self._selector.register(exchange.socket, selectors.EVENT_WRITE, exchange)

    def _go_on(self, exchange: _Exchange, waits_for: int) -> None:
        try:
            if waits_for == selectors.EVENT_READ:
                reply = exchange.read()
            else:
                reply = None
                if exchange.send():
                    self._selector.modify(exchange.socket, selectors.EVENT_READ, exchange)
        except OSError as error:
            reply = exchange.ended(0, type(error).__name__.encode())
        if reply is not None:
            self._end(exchange, reply)

    def _end(self, exchange: _Exchange, reply: Reply) -> None:
        self._selector.unregister(exchange.socket)
        exchange.socket.close()
        self._replies.append(reply)
        self._begin()
