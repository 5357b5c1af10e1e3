"""``POST /v1/chat/completions``: plain, or streamed as server-sent events."""

from __future__ import annotations

import asyncio
import time

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
from forebay.api.route_docs import json_body
from forebay.api.services import Services
from forebay.core.errors import TaskTimeoutError
from forebay.core.request import TaskId

router = APIRouter(tags=["chat"])


@router.post("/v1/chat/completions", openapi_extra=json_body(ChatForm))
async def chat_completions(request: Request, services: ServicesOf) -> Response:
    """Answer a conversation that may hold pictures."""
    arrived = time.monotonic()
    form = read_chat_form(await request.body())
    ask = to_ask(form, await chat_sampling(form, services.settings))
    task_id = (await submit(services, ask)).task_id
    if form.stream:
        return sse.EventStreamResponse(
            chat_events(
                services, task_id, answers=form.n or 1, usage=form.include_usage, arrived=arrived
            ),
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


async def _abandon(services: Services, task_id: TaskId) -> None:
    services.metrics.abandoned.inc()
    await services.queue.cancel(task_id)
