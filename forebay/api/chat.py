"""``POST /v1/chat/completions``: plain, or streamed as server-sent events."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from forebay.api import sse
from forebay.api.answers import ShownText, final_record
from forebay.api.chat_form import LONGEST_STOP, MOST_STOPS, ChatForm, read_chat_form, to_ask
from forebay.api.chat_objects import Chunks, completion
from forebay.api.dependencies import ServicesOf
from forebay.api.disconnect import CLIENT_CLOSED_REQUEST, ClientGoneError, unless_gone
from forebay.api.error_forms import openai_form
from forebay.api.intake import sampling_params, submit
from forebay.api.route_docs import json_body
from forebay.api.services import Services
from forebay.core.errors import ForebayError, InvalidRequestError, TaskTimeoutError, error_for_code
from forebay.core.request import SamplingParams, TaskId
from forebay.queue.ports import StreamKind

router = APIRouter(tags=["chat"])

_SEED_BITS = 63


@router.post("/v1/chat/completions", openapi_extra=json_body(ChatForm))
async def chat_completions(request: Request, services: ServicesOf) -> Response:
    """Answer a conversation that may hold pictures."""
    arrived = time.monotonic()
    form = read_chat_form(await request.body())
    ask = to_ask(form, _sampling(services, form))
    task_id = (await submit(services, ask)).task_id
    if form.stream:
        return sse.EventStreamResponse(
            _events(services, task_id, form, arrived),
            on_gone=lambda: _abandon(services, task_id),
            keep_alive_s=services.settings.keep_alive_s,
            send_timeout_s=services.settings.send_timeout_s,
        )
    try:
        async with asyncio.timeout(services.settings.answer_timeout_s):
            record = await unless_gone(request.receive, final_record(services, task_id))
    except ClientGoneError:
        await _abandon(services, task_id)
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    except TimeoutError as error:
        await services.queue.cancel(task_id)  # nobody would read it
        waited = services.settings.answer_timeout_s
        raise TaskTimeoutError(f"no answer within {waited:g} s") from error
    return JSONResponse(completion(record))


def _sampling(services: Services, form: ChatForm) -> SamplingParams:
    base = sampling_params(services, max_tokens=form.max_completion_tokens or form.max_tokens)
    stop = (form.stop,) if isinstance(form.stop, str) else tuple(form.stop or ())
    if len(stop) > MOST_STOPS or not all(1 <= len(one) <= LONGEST_STOP for one in stop):
        raise InvalidRequestError(
            f"stop takes up to {MOST_STOPS} strings of 1 to {LONGEST_STOP} characters", param="stop"
        )
    return replace(
        base,
        temperature=0.0 if form.temperature is None else form.temperature,
        top_p=1.0 if form.top_p is None else form.top_p,
        # Drawn once, here: a second attempt must go on with the words that a stream has shown.
        seed=secrets.randbits(_SEED_BITS) if form.seed is None else form.seed,
        stop=stop,
    )


async def _abandon(services: Services, task_id: TaskId) -> None:
    services.metrics.abandoned.inc()
    await services.queue.cancel(task_id)


async def _events(
    services: Services, task_id: TaskId, form: ChatForm, arrived: float
) -> AsyncGenerator[bytes]:
    """Yield the answer's events; after the response has begun, an error is an event too."""
    chunks = Chunks(task_id, services.profile.name, with_usage=form.include_usage)
    try:
        async with aclosing(_answer_events(services, task_id, chunks, arrived)) as events:
            async for one in events:
                yield one
    except ForebayError as error:
        yield sse.event(openai_form(error))
    yield sse.DONE


async def _answer_events(
    services: Services, task_id: TaskId, chunks: Chunks, arrived: float
) -> AsyncGenerator[bytes]:
    shown, waiting = ShownText(), True
    yield sse.event(chunks.opening())
    async with services.streams.subscribe(task_id) as entries:
        async for entry in entries:
            if entry.kind is StreamKind.RESTART:
                shown.restart()
            elif entry.kind is StreamKind.DELTA:
                if waiting:
                    services.metrics.first_token_seconds.observe(time.monotonic() - arrived)
                    waiting = False
                if text := shown.add(entry.text):
                    yield sse.event(chunks.delta(text), stream_id=entry.stream_id)
            elif entry.kind is StreamKind.DONE:
                shown.finish()
                for one in _closing(chunks, entry.fields):
                    yield one
            else:
                raise _failure(entry.kind, entry.fields)


def _closing(chunks: Chunks, fields: Any) -> list[bytes]:
    closing = [sse.event(chunks.closing(fields.get("finish_reason") or "stop"))]
    if chunks.with_usage:
        closing.append(sse.event(chunks.usage(fields.get("usage"))))
    return closing


def _failure(kind: StreamKind, fields: Any) -> ForebayError:
    if kind is StreamKind.CANCELLED:
        return error_for_code("cancelled")("the task was cancelled")
    return error_for_code(fields.get("code", ""))(fields.get("message") or "the task failed")
