"""Questions to the demo model: what it answers before the first fault is what it must answer."""

from __future__ import annotations

from dataclasses import replace

import httpx

from forebay.demo import load_samples
from tests.chaos.answers import Question
from tests.chaos.chat_face import chat_body
from tests.chaos.clients import Asking

SAMPLES = 6


async def learnt(http: httpx.AsyncClient, door: str) -> Asking:
    """Ask a few questions, each alone; return what asks them again, under other names.

    Raises httpx.HTTPError: nothing has been struck yet, so every one must be answered.
    """
    seen, blind = [], []
    for sample in load_samples(count=SAMPLES):
        picture = sample.path.read_bytes()
        seen.append(await _answered(http, door, Question("", sample.question, "", picture)))
        blind.append(await _answered(http, door, Question("", sample.question, "")))

    def again(name: str, number: int, *, with_picture: bool) -> Question:
        known = seen if with_picture else blind
        return replace(known[number % SAMPLES], name=name)

    return again


async def _answered(http: httpx.AsyncClient, door: str, question: Question) -> Question:
    reply = await http.post(f"{door}/v1/chat/completions", json=chat_body(question))
    reply.raise_for_status()
    return replace(question, answer=reply.json()["choices"][0]["message"]["content"])
