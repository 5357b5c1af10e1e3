"""Raw HTTP load: requests as bytes, a Poisson process of them, and what they got."""

from __future__ import annotations

import asyncio
import io
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from PIL import Image

from bench.door_client import LENGTH, LIMIT_S, STATUS, Reply
from bench.pictures import picture
from bench.statistics import percentile

PHOTO_BYTES = 100_000
_BOUNDARY = "forebay-bench-boundary"


def photo(index: int) -> bytes:
    """Return picture ``index`` as a JPEG of about 100 KB."""
    with Image.open(io.BytesIO(picture(index))) as drawn:
        for quality in (88, 91, 93, 95):
            out = io.BytesIO()
            drawn.save(out, "JPEG", quality=quality)
            if out.tell() >= PHOTO_BYTES:
                break
    return out.getvalue()


def predict_request(content: bytes, prompt: str, *, max_tokens: int | None = None) -> bytes:
    """Return the bytes of ``POST /predict``, as any client of the queue service sends it."""
    fields = {"prompt": prompt} | ({} if max_tokens is None else {"max_tokens": str(max_tokens)})
    parts = [
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'.encode()
        for name, text in fields.items()
    ]
    head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n'
    parts += [head.encode(), b"Content-Type: image/jpeg\r\n\r\n", content]
    body = b"".join([*parts, f"\r\n--{_BOUNDARY}--\r\n".encode()])
    return http_post("/predict", f"multipart/form-data; boundary={_BOUNDARY}", body)


def http_post(path: str, kind: str, body: bytes) -> bytes:
    """Return the bytes of a POST on a connection of its own."""
    lines = (
        f"POST {path} HTTP/1.1",
        "Host: 127.0.0.1",
        f"Content-Type: {kind}",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",  # each is to be a task of its own
        "Connection: close",
    )
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


async def send(url: str, request: bytes) -> Reply:
    """Send a request on a connection of its own."""
    began = time.perf_counter()
    try:
        async with asyncio.timeout(LIMIT_S), _connected(url) as (reader, writer):
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = LENGTH.search(head)
            body = await (reader.readexactly(int(length[1])) if length else reader.read())
    except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
        return Reply(began, time.perf_counter() - began, 0, type(error).__name__.encode())
    status = STATUS.match(head)
    return Reply(began, time.perf_counter() - began, int(status[1]) if status else 0, body)


@asynccontextmanager
async def _connected(
    url: str,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def open_loop(
    url: str, requests: Sequence[bytes], rate: float, seconds: float, seed: int
) -> list[Reply]:
    """Send requests as a Poisson process of ``rate`` a second, whether answered or not."""
    rng, sending = random.Random(seed), list[asyncio.Task[Reply]]()
    at, end = time.perf_counter(), time.perf_counter() + seconds
    while at < end:
        await asyncio.sleep(max(0.0, at - time.perf_counter()))
        request = requests[len(sending) % len(requests)]
        sending.append(asyncio.create_task(send(url, request)))
        at += rng.expovariate(rate)
    return list(await asyncio.gather(*sending))


def rate_of(replies: Sequence[Reply]) -> float:
    """Return the accepted requests a second, from the first one's begin to the last one's end."""
    good = [one for one in replies if 200 <= one.status < 300]
    if not good:
        return 0.0
    began = min(one.began for one in replies)
    return len(good) / (max(one.began + one.seconds for one in good) - began)


def about(replies: Sequence[Reply]) -> dict[str, Any]:
    """Return how many got what, and how fast, in milliseconds."""
    seconds = [one.seconds for one in replies]
    return {
        "requests": len(replies),
        "statuses": dict(sorted(Counter(str(one.status) for one in replies).items())),
        "accepted_per_s": rate_of(replies),
        **{f"p{share}_ms": percentile(seconds, share / 100) * 1000 for share in (50, 99)},
        "longest_ms": max(seconds) * 1000,
    }
