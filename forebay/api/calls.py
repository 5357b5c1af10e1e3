"""A request of a contract that is answered by one object, and takes one task or several."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import Request

from forebay.access.caller import Caller
from forebay.api.answers import final_record
from forebay.api.chat_form import chat_ask, chat_form
from forebay.api.chat_objects import completion
from forebay.api.completions.form import completion_asks, completion_form
from forebay.api.completions.objects import text_completion
from forebay.api.disconnect import ClientGoneError, unless_gone
from forebay.api.intake import Ask, submit
from forebay.api.responses.form import response_ask, response_form, terms_of
from forebay.api.responses.objects import response_object
from forebay.api.services import DoorSettings, Services
from forebay.core.errors import ForebayError, InvalidRequestError, TaskTimeoutError
from forebay.core.request import TaskId
from forebay.queue.ports import Enqueued, TaskRecord

Render = Callable[[Sequence[TaskRecord]], dict[str, Any]]
"""Makes the contract's answer of records that have one, one for each ask, in order."""


@dataclass(frozen=True, slots=True)
class Call:
    """What goes into the queue, and how the ended tasks become the contract's answer."""

    asks: tuple[Ask, ...]
    render: Render


ReadCall = Callable[[Mapping[str, Any], DoorSettings], Awaitable[Call]]
"""Reads a JSON body. Raises ForebayError where the request cannot be honoured."""


async def chat_call(raw: Mapping[str, Any], settings: DoorSettings) -> Call:
    """Read a chat completion's body."""
    form = chat_form(raw)
    _refuse_stream(form.stream)
    ask = await chat_ask(form, settings)
    return Call((ask,), lambda records: completion(records[0], ask.tools))


async def completion_call(raw: Mapping[str, Any], settings: DoorSettings) -> Call:
    """Read a completion's body."""
    form = completion_form(raw)
    _refuse_stream(form.stream)
    return Call(await completion_asks(form, settings), text_completion)


async def response_call(raw: Mapping[str, Any], settings: DoorSettings) -> Call:
    """Read a response's body; it is not stored."""
    if raw.get("background"):
        raise InvalidRequestError("it is in the background anyway", param="background")
    form = response_form({**raw, "store": False})
    _refuse_stream(form.stream)
    ask = await response_ask(form, settings)
    terms = terms_of(form, ask.sampling)
    return Call((ask,), lambda records: response_object(records[0], terms))


async def submit_all(services: Services, asks: Sequence[Ask], caller: Caller) -> list[Enqueued]:
    """Take all in, or none. Raises ForebayError as ``submit``."""
    taken: list[Enqueued] = []
    for ask in asks:
        try:
            taken.append(await submit(services, ask, caller))
        except ForebayError:
            await _cancel_all(services, [one.task_id for one in taken])
            raise
    return taken


async def answers_to_all(
    request: Request, services: Services, task_ids: Sequence[TaskId], *, lasting: bool
) -> list[TaskRecord]:
    """Wait for every answer. Where there is to be none, all are cancelled, unless ``lasting``.

    Raises:
        ClientGoneError: nobody is there any more to read them.
        TaskTimeoutError: they take longer than a request may wait.
        ForebayError: a task's own error.
    """
    waits_s = services.settings.answer_timeout_s
    try:
        async with asyncio.timeout(waits_s):
            return await unless_gone(request.receive, _records(services, task_ids))
    except ClientGoneError:
        await abandon_all(services, task_ids, lasting=lasting)
        raise
    except TimeoutError as error:
        await _cancel_all(services, () if lasting else task_ids)
        raise TaskTimeoutError(f"no answer within {waits_s:g} s") from error
    except ForebayError:
        await _cancel_all(services, () if lasting else task_ids)
        raise


async def abandon_all(services: Services, task_ids: Sequence[TaskId], *, lasting: bool) -> None:
    """A client has hung up: count it, and cancel what nobody will read.

    ``lasting``: it gave an idempotency key, and may come back for its answers.
    """
    services.metrics.abandoned.inc()
    await _cancel_all(services, () if lasting else task_ids)


async def _records(services: Services, task_ids: Sequence[TaskId]) -> list[TaskRecord]:
    return [await final_record(services, task_id) for task_id in task_ids]


async def _cancel_all(services: Services, task_ids: Sequence[TaskId]) -> None:
    for task_id in task_ids:
        await services.queue.cancel(task_id)


def _refuse_stream(stream: bool | None) -> None:
    if stream:
        raise InvalidRequestError("nothing is streamed here: leave stream out", param="stream")
