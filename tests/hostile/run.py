"""Throws the attacks at a stack, some at once, and writes down what came back."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from tests.hostile.attack import SECRET, Attack

AT_ONCE = 8
ANSWER_LIMIT_S = 60.0
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
_INSIDES = re.compile(rb"object at 0x|Traceback|File \"|/site-packages/|root:x:")
_LINE_END = b" HTTP/1.1\r\n"
_MOST_KEPT = 20
_TRIES = 10
_AWAY = b'"queue_unavailable"'
"""A machine that is busy with other things may starve the queue's server for a second: a client
does as it is told and comes again. How often is in the figures."""


@dataclass
class Report:
    """What came of a run. ``faults``: what must be empty. ``at_the_gate``: statuses of those
    that bring no good token."""

    sent: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    at_the_gate: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    came_again: int = 0

    def figures(self) -> dict[str, Any]:
        ordered = sorted(self.seconds)
        return {
            "sent": dict(sorted(self.sent.items())),
            "total": self.sent.total(),
            "statuses": dict(sorted(self.statuses.items())),
            "statuses_without_a_good_token": dict(sorted(self.at_the_gate.items())),
            "p50_ms": round(ordered[len(ordered) // 2] * 1000, 1),
            "longest_ms": round(ordered[-1] * 1000, 1),
            "came_again": self.came_again,
            "faults": self.faults[:_MOST_KEPT],
            "faults_total": len(self.faults),
        }


async def throw(url: str, attacks: Iterable[Attack], token: str, *, refused: bool = True) -> Report:
    """Send every attack. ``refused``: each must be; else an answer will do as well.

    ``token`` lets those in that are not about coming in.
    """
    report, waiting, turn = Report(), iter(attacks), asyncio.Lock()

    async def one_client() -> None:
        while True:
            async with turn:
                # a bomb takes a while to make: clients that have begun must not stand still
                attack = await asyncio.to_thread(next, waiting, None)
            if attack is None:
                return
            await _throw_one(url, let_in(attack, token), report, refused)

    await asyncio.gather(*(one_client() for _ in range(AT_ONCE)))
    return report


def _without_token(attack: Attack) -> bool:
    """Whether it is a trick with a token, or has no place for one."""
    return attack.kind == "token" or _LINE_END not in attack.request


def let_in(attack: Attack, token: str) -> Attack:
    """Return the attack with a good token behind its first line, where it has one."""
    if _without_token(attack):
        return attack
    first, end, rest = attack.request.partition(_LINE_END)
    line = f"Authorization: Bearer {token}\r\n".encode()
    return replace(attack, request=first + end + line + rest)


async def _throw_one(url: str, attack: Attack, report: Report, refused: bool) -> None:
    report.sent[attack.kind] += 1
    began = time.monotonic()
    try:
        async with asyncio.timeout(ANSWER_LIMIT_S):
            answer = await _answer(url, attack, report)
    except (TimeoutError, OSError) as error:
        report.faults.append(f"{attack.kind} ({attack.about}): {type(error).__name__}")
        return
    if not attack.stalls:
        report.seconds.append(time.monotonic() - began)
    fault = fault_in(answer, refused)
    found = _STATUS.match(answer)
    status = found[1].decode() if found else "none"
    (report.at_the_gate if _without_token(attack) else report.statuses)[status] += 1
    if fault:
        report.faults.append(f"{attack.kind} ({attack.about}): {fault}: {answer[-300:]!r}")


async def _answer(url: str, attack: Attack, report: Report) -> bytes:
    for _ in range(_TRIES - 1):
        answer = await _send(url, attack)
        if _AWAY not in answer:
            return answer
        report.came_again += 1
        await asyncio.sleep(1)
    return await _send(url, attack)


def fault_in(answer: bytes, refused: bool) -> str | None:
    found = _STATUS.match(answer)
    if not found:
        return "no answer"
    status = int(found[1])
    if not (400 <= status < 500 or (status < 300 and not refused)):
        return f"status {status}"
    told = answer.partition(b"\r\n\r\n")[2]
    if status >= 400 and re.search(
        rb"object at 0x|Traceback|File \"|/site-packages/|root:x:", told
    ):
        return "an inside is told"
    return None


async def _send(url: str, attack: Attack) -> bytes:
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        sending = asyncio.ensure_future(_write(writer, attack))
        try:
            return await _read(reader)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
    finally:
        writer.transport.abort()


async def _write(writer: asyncio.StreamWriter, attack: Attack) -> None:
    writer.write(attack.request)
    await writer.drain()


async def _read(reader: asyncio.StreamReader) -> bytes:
    """Return the answer: its head, and as much of a body as it announces."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        return error.partial
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    body = await (reader.readexactly(int(length[1])) if length else reader.read())
    return head + body


SECRETS = [SECRET.encode(), b"s3cr3t", b"czNjcjN0", b"eyJ"]
"""In words and in base64; the last is how every token begins."""
