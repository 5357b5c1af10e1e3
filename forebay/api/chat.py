"""``POST /v1/chat/completions``: plain, or streamed as server-sent events."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from forebay.api import sse
from forebay.api.answers import final_record
from forebay.api.chat_form import ChatForm, chat_sampling, read_chat_form, to_ask
from forebay.api.chat_objects import completion
from forebay.api.chat_stream import chat_events
from forebay.api.dependencies import ServicesOf
from forebay.api.disconnect import CLIENT_CLOSED_REQUEST, ClientGoneError, unless_gone
from forebay.api.intake import submit
from forebay.api.preferences import (
    KEY_HEADER,
    REPLAYED_HEADER,
    TASK_HEADER,
    idempotency_of,
)
from forebay.api.reuse import cache_header, cache_wishes
from forebay.api.route_docs import header_fields, json_body
from forebay.api.services import Services
from forebay.core.errors import TaskTimeoutError
from forebay.core.request import TaskId
from forebay.queue.ports import Enqueued

router = APIRouter(tags=["chat"])

_DOCS = {**json_body(ChatForm), "parameters": header_fields(KEY_HEADER)}


@router.post("/v1/chat/completions", openapi_extra=_DOCS)
async def chat_completions(request: Request, services: ServicesOf) -> Response:
    """Answer a conversation that may hold pictures."""
    arrived = time.monotonic()
    body = await request.body()
    form = read_chat_form(body)
    ask = to_ask(form, await chat_sampling(form, services.settings))
    ask = replace(
        ask,
        idempotency=idempotency_of(request, [body]),
        cache=cache_wishes(request.headers),
    )
    enqueued = await submit(services, ask)
    task_id, lasting = enqueued.task_id, ask.idempotency is not None
    headers = _headers(enqueued)
    if form.stream:
        return sse.EventStreamResponse(
            chat_events(
                services, task_id, answers=form.n or 1, usage=form.include_usage, arrived=arrived
            ),
            on_gone=lambda: _abandon(services, task_id, lasting=lasting),
            keep_alive_s=services.settings.keep_alive_s,
            send_timeout_s=services.settings.send_timeout_s,
            headers=headers,
        )
    try:
        async with asyncio.timeout(services.settings.answer_timeout_s):
            record = await unless_gone(request.receive, final_record(services, task_id))
    except ClientGoneError:
        await _abandon(services, task_id, lasting=lasting)
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    except TimeoutError as error:
        if not lasting:
            await services.queue.cancel(task_id)  # nobody would read it
        waited = services.settings.answer_timeout_s
        raise TaskTimeoutError(f"no answer within {waited:g} s") from error
    return JSONResponse(completion(record), headers=headers)


def _headers(enqueued: Enqueued) -> dict[str, str]:
    """Return what lets a client go over to the tasks API, or see that it was not asked twice."""
    headers = {TASK_HEADER: str(enqueued.task_id), **cache_header(enqueued)}
    return headers if enqueued.fresh else {**headers, REPLAYED_HEADER: "true"}


async def _abandon(services: Services, task_id: TaskId, *, lasting: bool) -> None:
    """A client has hung up. One that gave an idempotency key may come back for its answer."""
    services.metrics.abandoned.inc()
    if not lasting:
        await services.queue.cancel(task_id)
