"""``POST /v1/chat/completions``: plain, or streamed as server-sent events."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from forebay.access.caller import Caller
from forebay.api import sse
from forebay.api.call_chunks import CallChunks
from forebay.api.chat_form import ChatForm, chat_ask, read_chat_form
from forebay.api.chat_objects import Chunks, completion
from forebay.api.chat_stream import answer_events
from forebay.api.dependencies import let_in
from forebay.api.disconnect import CLIENT_CLOSED_REQUEST
from forebay.api.intake import submit
from forebay.api.middleware.body_limit import let_go, read_parsed
from forebay.api.plain_route import PlainRoute
from forebay.api.preferences import KEY_HEADER, idempotency_of
from forebay.api.reuse import cache_wishes
from forebay.api.route_docs import header_fields, json_body
from forebay.api.services import Services
from forebay.api.taken import Taken
from forebay.api.waiting import abandon
from forebay.core.tools import ToolUse

router = APIRouter(tags=["chat"], route_class=PlainRoute)

_DOCS = {**json_body(ChatForm), "parameters": header_fields(KEY_HEADER)}


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is left of a request once it is a task: how its answer is to come."""

    taken: Taken
    stream: bool
    answers: int
    usage: bool
    tools: ToolUse | None

    def chunks(self, model: str) -> Chunks:
        """Return what makes the chunks of its stream."""
        task_id = self.taken.enqueued.task_id
        if self.tools is None:
            return Chunks(task_id, model, with_usage=self.usage)
        return CallChunks(task_id, model, self.tools, with_usage=self.usage)


@router.post("/v1/chat/completions", openapi_extra=_DOCS)
async def chat_completions(request: Request) -> Response:
    """Answer a conversation that may hold pictures."""
    arrived = time.monotonic()
    services, caller = await let_in(request)
    asked = await _take(request, services, caller)
    let_go(request)
    taken = asked.taken
    task_id = taken.enqueued.task_id
    if asked.stream:
        chunks = asked.chunks(services.profile.name)
        opening = map(chunks.opening, range(asked.answers))
        return sse.EventStreamResponse(
            answer_events(services, task_id, chunks, opening, arrived),
            on_gone=lambda: abandon(services, task_id, lasting=taken.lasting),
            keep_alive_s=services.settings.keep_alive_s,
            send_timeout_s=services.settings.send_timeout_s,
            headers=taken.headers,
        )
    record = await taken.answer(request, services)
    if record is None:
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    return JSONResponse(completion(record, asked.tools), headers=taken.headers)


async def _take(request: Request, services: Services, caller: Caller) -> _Asked:
    """Submit what is asked; nothing of the body is kept."""
    form, body = await read_parsed(request, read_chat_form)
    ask = replace(
        await chat_ask(form, services.settings),
        idempotency=idempotency_of(request, [body]),
        cache=cache_wishes(request.headers),
    )
    taken = Taken(await submit(services, ask, caller), lasting=ask.idempotency is not None)
    return _Asked(taken, bool(form.stream), form.n or 1, form.include_usage, ask.tools)
