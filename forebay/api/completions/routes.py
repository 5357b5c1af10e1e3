"""``POST /v1/completions``: plain, or streamed as server-sent events."""

from __future__ import annotations

import time
from dataclasses import replace

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from forebay.api import sse
from forebay.api.calls import abandon_all, answers_to_all, submit_all
from forebay.api.chat_form import json_object
from forebay.api.chat_stream import answer_events
from forebay.api.completions.form import CompletionForm, completion_asks, completion_form
from forebay.api.completions.objects import TextChunks, text_completion
from forebay.api.dependencies import CallerOf, OpenDoor
from forebay.api.disconnect import CLIENT_CLOSED_REQUEST, ClientGoneError
from forebay.api.middleware.body_limit import let_go, read_parsed
from forebay.api.preferences import KEY_HEADER, TASK_HEADER, idempotency_of
from forebay.api.reuse import cache_wishes
from forebay.api.route_docs import header_fields, json_body
from forebay.api.services import Services
from forebay.core.request import TaskId
from forebay.queue.ports import Idempotency

router = APIRouter(tags=["chat"])

_DOCS = {**json_body(CompletionForm), "parameters": header_fields(KEY_HEADER)}


@router.post("/v1/completions", openapi_extra=_DOCS)
async def completions(request: Request, services: OpenDoor, caller: CallerOf) -> Response:
    """Go on with a text. No chat template is put around it, and it has no pictures."""
    arrived = time.monotonic()
    raw, body = await read_parsed(request, json_object)
    form = completion_form(raw)
    cache, given = cache_wishes(request.headers), idempotency_of(request, [body])
    asks = [
        replace(ask, cache=cache, idempotency=_of_prompt(given, at))
        for at, ask in enumerate(await completion_asks(form, services.settings))
    ]
    task_ids = [one.task_id for one in await submit_all(services, asks, caller)]
    del raw, body, asks
    let_go(request)
    headers, lasting = {TASK_HEADER: ", ".join(task_ids)}, given is not None
    if form.stream:
        return _stream(services, task_ids[0], form, arrived, headers, lasting=lasting)
    try:
        records = await answers_to_all(request, services, task_ids, lasting=lasting)
    except ClientGoneError:
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    return JSONResponse(text_completion(records), headers=headers)


def _of_prompt(given: Idempotency | None, at: int) -> Idempotency | None:
    """Return a key for each prompt; no client's own has a blank."""
    return given and replace(given, key=f"{given.key} {at}")


def _stream(
    services: Services,
    task_id: TaskId,
    form: CompletionForm,
    arrived: float,
    headers: dict[str, str],
    *,
    lasting: bool,
) -> Response:
    chunks = TextChunks(task_id, services.profile.name, with_usage=form.include_usage)
    return sse.EventStreamResponse(
        answer_events(services, task_id, chunks, (), arrived),
        on_gone=lambda: abandon_all(services, [task_id], lasting=lasting),
        keep_alive_s=services.settings.keep_alive_s,
        send_timeout_s=services.settings.send_timeout_s,
        headers=headers,
    )
