"""``/v1/responses``, as OpenAI clients know it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response

from forebay.access.caller import Caller
from forebay.api import sse
from forebay.api.calls import abandon_all, answers_to_all
from forebay.api.chat_form import json_object
from forebay.api.dependencies import CallerOf, OpenDoor, ServicesOf
from forebay.api.disconnect import CLIENT_CLOSED_REQUEST, ClientGoneError
from forebay.api.intake import submit
from forebay.api.middleware.body_limit import let_go, read_parsed
from forebay.api.preferences import KEY_HEADER, TASK_HEADER, idempotency_of
from forebay.api.responses.events import NOTHING, response_events
from forebay.api.responses.form import (
    ResponseForm,
    response_ask,
    response_form,
    terms_of,
)
from forebay.api.responses.objects import response_object
from forebay.api.reuse import cache_wishes
from forebay.api.route_docs import header_fields, json_body
from forebay.api.services import Services
from forebay.core.errors import (
    InvalidRequestError,
    NoSuchRouteError,
    ResponseNotFoundError,
)
from forebay.queue.ports import TaskRecord
from forebay.queue.responses import UNFINISHED_TTL_S, RedisResponses, ResponseRecord

router = APIRouter(prefix="/v1/responses", tags=["responses"])

_DOCS: Final = {**json_body(ResponseForm), "parameters": header_fields(KEY_HEADER)}
_QUERY: Final = frozenset({"stream", "starting_after", "include_obfuscation"})


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is left of a request once it is a task. ``lasting``: its client may come back."""

    kept: ResponseRecord
    stream: bool
    lasting: bool
    headers: dict[str, str]


@router.post("", openapi_extra=_DOCS)
async def create_response(request: Request, services: OpenDoor, caller: CallerOf) -> Response:
    """Answer at once, as a stream, or (`background`) later: then ask again by the id."""
    asked = await _take(request, services, caller)
    let_go(request)
    kept = asked.kept
    if not kept.background and not asked.stream:
        return await _answer(request, services, asked)
    record = await _task(services, kept)
    if not asked.stream:
        return JSONResponse(response_object(record, kept.terms), headers=asked.headers)

    async def gone() -> None:
        await abandon_all(services, [kept.task_id], lasting=asked.lasting)

    return _stream(services, kept, record, NOTHING, gone)


async def _take(request: Request, services: Services, caller: Caller) -> _Asked:
    """Submit what is asked; nothing of the body is kept."""
    raw, body = await read_parsed(request, json_object)
    form = response_form(raw)
    idempotency = idempotency_of(request, [body])
    ask = await response_ask(form, services.settings)
    ask = replace(
        ask,
        cache=cache_wishes(request.headers),
        idempotency=idempotency,
        deadline_s=UNFINISHED_TTL_S if form.background else None,
    )
    enqueued = await submit(services, ask, caller)
    kept = ResponseRecord(
        enqueued.task_id, caller.tenant, bool(form.background), terms_of(form, ask.sampling)
    )
    if form.stored:
        await _responses(services).keep(kept)
    lasting = kept.background or idempotency is not None
    return _Asked(kept, bool(form.stream), lasting, {TASK_HEADER: str(enqueued.task_id)})


@router.get("/{response_id}")
async def get_response(
    response_id: str,
    request: Request,
    services: ServicesOf,
    caller: CallerOf,
    stream: bool = False,
    starting_after: Annotated[int | None, Query(ge=0)] = None,
    include_obfuscation: bool = False,
) -> Response:
    """Return a stored response, or its events after number `starting_after` with `stream`."""
    _check_query(request, stream, starting_after, include_obfuscation)
    kept = await _kept(services, caller, response_id)
    record = await _task(services, kept)
    if stream:
        after = NOTHING if starting_after is None else starting_after
        return _stream(services, kept, record, after, _let_it_run)
    if record.state.final:
        await _responses(services).ended(kept.response_id)
    return JSONResponse(response_object(record, kept.terms))


@router.post("/{response_id}/cancel")
async def cancel_response(
    response_id: str, services: ServicesOf, caller: CallerOf
) -> dict[str, Any]:
    """End a response that was made in the background; one that has ended stays as it is."""
    kept = await _kept(services, caller, response_id)
    if not kept.background:
        raise InvalidRequestError(
            "only a response in the background can be cancelled", param="response_id"
        )
    await services.queue.cancel(kept.task_id)
    return response_object(await _task(services, kept), kept.terms)


@router.delete("/{response_id}")
async def delete_response(
    response_id: str, services: ServicesOf, caller: CallerOf
) -> dict[str, Any]:
    """Forget a response; one that has not ended is cancelled."""
    kept = await _kept(services, caller, response_id)
    await services.queue.cancel(kept.task_id)
    await _responses(services).remove(kept.response_id)
    return {"id": response_id, "object": "response", "deleted": True}


async def _answer(request: Request, services: Services, asked: _Asked) -> Response:
    kept = asked.kept
    try:
        [record] = await answers_to_all(request, services, [kept.task_id], lasting=asked.lasting)
    except ClientGoneError:
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    await _responses(services).ended(kept.response_id)
    return JSONResponse(response_object(record, kept.terms), headers=asked.headers)


def _stream(
    services: Services,
    kept: ResponseRecord,
    record: TaskRecord,
    after: int,
    on_gone: Callable[[], Awaitable[object]],
) -> Response:
    return sse.EventStreamResponse(
        response_events(services, kept, record, after),
        on_gone=on_gone,
        keep_alive_s=services.settings.keep_alive_s,
        send_timeout_s=services.settings.send_timeout_s,
        headers={TASK_HEADER: str(kept.task_id)},
    )


async def _let_it_run() -> None:
    """A response outlives those who listen to it again."""


async def _kept(services: Services, caller: Caller, response_id: str) -> ResponseRecord:
    found = await _responses(services).get(response_id)
    if found is None or found.tenant != caller.tenant:
        raise _not_found(response_id)
    return found


async def _task(services: Services, kept: ResponseRecord) -> TaskRecord:
    record = await services.queue.get(kept.task_id)
    if record is None:
        raise _not_found(kept.response_id)
    return record


def _not_found(response_id: str) -> ResponseNotFoundError:
    return ResponseNotFoundError(
        f"No such response: {response_id[:64]}. Responses expire.", param="response_id"
    )


def _responses(services: Services) -> RedisResponses:
    if services.responses is None:
        raise NoSuchRouteError("no responses are kept here")
    return services.responses


def _check_query(
    request: Request, stream: bool, starting_after: int | None, include_obfuscation: bool
) -> None:
    unknown = sorted(set(request.query_params) - _QUERY)
    if unknown:
        name = unknown[0]
        raise InvalidRequestError(f"the parameter {name[:64]!r} is not supported here", param=name)
    if starting_after is not None and not stream:
        raise InvalidRequestError("starting_after needs stream to be true", param="starting_after")
    if include_obfuscation:
        raise InvalidRequestError("padding is not done here", param="include_obfuscation")
