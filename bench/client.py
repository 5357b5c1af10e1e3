"""The load: chat requests with pictures, all at once or so many at a time, and what each got."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from bench.pictures import picture
from bench.sse import ServerSaidError, StreamEnd, read_line
from bench.statistics import Answer

ANSWER_TOKENS = 32
TIMEOUT_S = 900.0
QUESTIONS = (
    "Describe the picture in a few short sentences, then say what the main colours are.",
    "What is the most important thing to see here, and where in the picture is it placed?",
    "List the objects in this picture one by one and tell how many of each there are.",
)
_LOUDEST = 300


@dataclass(frozen=True, slots=True)
class Target:
    """A server as clients see it.

    ``fixed_length``: whether it takes ``ignore_eos`` and ``min_tokens``, so that every answer has
    the same number of tokens. ``streams``: whether it sends tokens as they come.
    """

    url: str
    model: str
    streams: bool = True
    fixed_length: bool = True

    def body(self, question: str, index: int, max_tokens: int = ANSWER_TOKENS) -> bytes:
        """Return the request about picture ``index``."""
        encoded = base64.b64encode(picture(index)).decode("ascii")
        shown = {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{encoded}"}}
        content = [shown, {"type": "text", "text": question}]
        raw: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": self.streams,
        }
        if self.streams:
            raw["stream_options"] = {"include_usage": True}
        if self.fixed_length:
            raw |= {"ignore_eos": True, "min_tokens": max_tokens}
        return json.dumps(raw).encode()

    def bodies(self, first: int, count: int) -> list[bytes]:
        """Return requests about ``count`` pictures from ``first`` on, each with its question."""
        return [
            self.body(f"{QUESTIONS[index % len(QUESTIONS)]} ({index})", index)
            for index in range(first, first + count)
        ]


async def burst(target: Target, bodies: Sequence[bytes]) -> list[Answer]:
    """Send every request at once."""
    async with _client(target) as client:
        return list(await asyncio.gather(*(_ask(client, target, body) for body in bodies)))


async def closed(target: Target, bodies: Iterable[bytes], concurrency: int) -> list[Answer]:
    """Keep ``concurrency`` requests under way until all are answered."""
    waiting = iter(bodies)

    async def one_client() -> list[Answer]:
        return [await _ask(client, target, body) for body in waiting]

    async with _client(target) as client:
        parts = await asyncio.gather(*(one_client() for _ in range(concurrency)))
    return [answer for part in parts for answer in part]


async def takes_fixed_length(target: Target) -> bool:
    """Find out whether the server takes ``ignore_eos`` and ``min_tokens``.

    Raises:
        ServerSaidError: it refuses the request without them too.
    """
    fixed = Target(target.url, target.model, target.streams, fixed_length=True)
    free = Target(target.url, target.model, target.streams, fixed_length=False)
    async with _client(target) as client:
        for attempt in (fixed, free):
            answer = await _ask(client, attempt, attempt.body(QUESTIONS[0], 0, max_tokens=2))
            if answer.error is None:
                return attempt.fixed_length
    raise ServerSaidError(f"{target.url} does not answer: {answer.error}")


def _client(target: Target) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    return httpx.AsyncClient(
        base_url=target.url,
        headers={"Cache-Control": "no-store"},  # every request is to be computed
        timeout=TIMEOUT_S,
        limits=limits,
        trust_env=False,
    )


async def _ask(client: httpx.AsyncClient, target: Target, body: bytes) -> Answer:
    began = time.perf_counter()
    try:
        if target.streams:
            return await _ask_streaming(client, body, began)
        return await _ask_plainly(client, body, began)
    except (httpx.HTTPError, ServerSaidError, ValueError, KeyError) as error:
        said = f"{type(error).__name__}: {error}"[:_LOUDEST]
        return Answer(began, time.perf_counter() - began, None, 0, "", said)


async def _ask_streaming(client: httpx.AsyncClient, body: bytes, began: float) -> Answer:
    first: float | None = None
    texts: list[str] = []
    tokens: int | None = None
    async with client.stream("POST", _PATH, content=body, headers=_HEADERS) as reply:
        await _refuse_errors(reply)
        async for line in reply.aiter_lines():
            said = read_line(line)
            if isinstance(said, StreamEnd):
                break
            tokens = said.tokens if said.tokens is not None else tokens
            if said.text:
                texts.append(said.text)
                first = first or time.perf_counter() - began
    latency = time.perf_counter() - began
    if first is None and not tokens:
        raise ServerSaidError("an empty answer")
    return Answer(began, latency, first, tokens or len(texts), "".join(texts))


async def _ask_plainly(client: httpx.AsyncClient, body: bytes, began: float) -> Answer:
    reply = await client.post(_PATH, content=body, headers=_HEADERS)
    await _refuse_errors(reply)
    raw = reply.json()
    latency = time.perf_counter() - began
    text = raw["choices"][0]["message"]["content"]
    return Answer(began, latency, None, int(raw["usage"]["completion_tokens"]), text)


async def _refuse_errors(reply: httpx.Response) -> None:
    if not reply.is_success:
        said = (await reply.aread()).decode("utf-8", "replace")
        raise ServerSaidError(f"{reply.status_code}: {said[:_LOUDEST]}")


_PATH = "/v1/chat/completions"
_HEADERS = {"content-type": "application/json"}
