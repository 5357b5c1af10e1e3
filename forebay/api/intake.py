"""The way in, the same for every contract: price, decide, decode, store, enqueue."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from forebay.access.caller import Caller
from forebay.admission.cost import PricedPicture, price_picture, price_request
from forebay.admission.header import read_header
from forebay.admission.held import Hold
from forebay.admission.policy import NOTHING, Shed, count_fault, decide, queue_fault
from forebay.api.disconnect import end
from forebay.api.picture_urls import PictureUrl, fetch_all
from forebay.api.pictures import RawPicture, StoringPictures
from forebay.api.reuse import CacheWishes, same_answer
from forebay.api.services import Services
from forebay.core.errors import (
    ForebayError,
    InvalidRequestError,
    ModelNotFoundError,
    PicturesNotHeldError,
)
from forebay.core.request import (
    Cost,
    ImagePart,
    InferenceRequest,
    Message,
    Part,
    Priority,
    Role,
    SamplingParams,
    TaskId,
    TextPart,
)
from forebay.core.template_files import NO_TOOLS
from forebay.core.tools import ToolCall, ToolUse
from forebay.core.trace import current_trace
from forebay.ops.spans import span_of
from forebay.queue.ports import Enqueued, Idempotency, NewTask


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of the conversation, its pictures still raw; otherwise as ``Message``."""

    role: Role
    parts: tuple[str | RawPicture | PictureUrl, ...]
    calls: tuple[ToolCall, ...] = ()
    call_id: str | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """A request in the door's own words, whatever its contract. ``model`` None: the served one.

    ``raw`` and ``tools`` are those of ``InferenceRequest``; the fields after the model are those of
    ``NewTask``.
    """

    turns: tuple[Turn, ...]
    sampling: SamplingParams
    model: str | None = None
    priority: Priority = Priority.NORMAL
    deadline_s: float | None = None
    delay_s: float = 0.0
    webhook_url: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    idempotency: Idempotency | None = None
    cache: CacheWishes = field(default_factory=CacheWishes)
    raw: bool = False
    tools: ToolUse | None = None

    def beside(self) -> list[str]:
        """Return the texts that are no parts of messages: functions, and calls of them."""
        tools = () if self.tools is None else self.tools.tools
        calls = [call for turn in self.turns for call in turn.calls]
        return [
            *(tool.spec for tool in tools),
            *(text for call in calls for text in (call.call_id, call.name, call.arguments)),
            *(turn.call_id for turn in self.turns if turn.call_id is not None),
        ]


async def check_open(services: Services) -> None:
    """Raise what a request would be refused with whatever it asks; its body need not be read.

    Raises:
        QueueFullError: as much waits as may.
        QueueUnavailableError: the queue does not answer.
    """
    try:
        if error := queue_fault(NOTHING, await services.load.now(), services.limits):
            raise error
    except ForebayError as error:
        services.metrics.refused.labels(error.code).inc()
        raise


async def submit(services: Services, ask: Ask, caller: Caller) -> Enqueued:
    """Take ``ask`` in for ``caller``; it is in the queue at the end, and nowhere when this raises.

    Raises:
        ForebayError: of the request's own fault, or of the queue's state. Nothing was enqueued.
    """
    try:
        with span_of(services.spans, "admit"):
            return await _replayed(services, ask, caller) or await _submit(services, ask, caller)
    except ForebayError as error:
        services.metrics.refused.labels(error.code).inc()
        raise


async def _replayed(services: Services, ask: Ask, caller: Caller) -> Enqueued | None:
    """Return the task of a request that is sent again. It is there: no load is too high for it."""
    if ask.idempotency is None:
        return None
    return await services.queue.replayed(caller.tenant, ask.idempotency)


async def _submit(services: Services, ask: Ask, caller: Caller) -> Enqueued:
    if (priority := caller.priority(ask.priority)) is not ask.priority:
        ask = replace(ask, priority=priority)
    if ask.model is not None and not services.profile.knows(ask.model):
        raise ModelNotFoundError(f"the model {ask.model!r} is not served here", param="model")
    _check_tools(services, ask)
    parts = [part for turn in ask.turns for part in turn.parts]
    texts = [part for part in parts if isinstance(part, str)]
    pictures = len(parts) - len(texts)
    texts += ask.beside()
    _check_text(texts)
    if too_many := count_fault(pictures, services.limits):
        raise too_many
    with services.held.hold() as hold:
        raw = await _with_bytes(services, ask, parts, texts, hold)
        return await _enter(services, ask, caller, texts, raw)


async def _with_bytes(
    services: Services,
    ask: Ask,
    parts: Sequence[str | RawPicture | PictureUrl],
    texts: Sequence[str],
    hold: Hold,
) -> list[RawPicture]:
    """Return the pictures, those that lie elsewhere fetched, unless the door is closed anyhow."""
    pictures = [part for part in parts if not isinstance(part, str)]
    urls = [one for one in pictures if isinstance(one, PictureUrl)]
    if urls and services.fetcher is not None:
        await _admit(services, ask, texts, [])
    contents = iter(await fetch_all(services, urls, hold))
    return [
        RawPicture(next(contents), one.side, one.lossless) if isinstance(one, PictureUrl) else one
        for one in pictures
    ]


async def _admit(
    services: Services, ask: Ask, texts: Sequence[str], priced: Sequence[PricedPicture]
) -> Cost:
    """Return what the request costs. Raises the ForebayError with which it is shed."""
    cost = price_request(texts, priced, ask.sampling.max_tokens, ask.sampling.n)
    decision = decide(priced, cost, await services.load.now(), services.limits)
    if isinstance(decision, Shed):
        raise decision.error
    if services.workers is not None:
        await services.workers.check()
    return cost


async def _enter(
    services: Services,
    ask: Ask,
    caller: Caller,
    texts: Sequence[str],
    raw: Sequence[RawPicture],
) -> Enqueued:
    priced = [_price(services, picture) for picture in raw]
    cost = await _admit(services, ask, texts, priced)
    with services.load.reserved(cost) as place:
        async with services.gate.spending(caller, cost.total) as bill:
            # only what is admitted is decoded
            enqueued = await _stored_and_enqueued(services, ask, caller, cost, raw, priced)
            # an answer that is there, or that another task computes, costs nobody anything
            bill.void = not enqueued.fresh or enqueued.reuse is not None
        place.taken = enqueued.fresh and enqueued.reuse is None
    if enqueued.fresh:
        _count(services, enqueued, cost)
        services.metrics.see_tenant(caller.tenant)
    return enqueued


async def _stored_and_enqueued(
    services: Services,
    ask: Ask,
    caller: Caller,
    cost: Cost,
    raw: Sequence[RawPicture],
    priced: Sequence[PricedPicture],
) -> Enqueued:
    for again in (False, True):
        pictures = StoringPictures(services, caller.tenant)
        await pictures.store(raw, priced)
        task = _task(services, ask, caller, cost, pictures.parts)
        try:
            return await _settled_and_enqueued(services, task, pictures)
        except PicturesNotHeldError:
            # the way in was too long, or the queue's server has lost what it knew a moment ago
            pictures.forget()
            if again:
                raise
    raise AssertionError  # the second try returns or raises


async def _settled_and_enqueued(
    services: Services, task: NewTask, pictures: StoringPictures
) -> Enqueued:
    """Enqueue while the disk takes the pictures: a worker may begin, its client is told of both."""
    if pictures.safe:
        return await _enqueued(services, task)
    settling = asyncio.ensure_future(pictures.settle())
    try:
        enqueued = await _enqueued(services, task)
    except BaseException:
        await end(settling)
        raise
    try:
        await settling
    except Exception:
        if enqueued.fresh:  # its client hears that it was not taken
            await services.queue.cancel(enqueued.task_id)
        raise
    return enqueued


async def _enqueued(services: Services, task: NewTask) -> Enqueued:
    async with services.turns:
        return await services.queue.enqueue(task)


def _task(
    services: Services, ask: Ask, caller: Caller, cost: Cost, stored: Sequence[ImagePart]
) -> NewTask:
    messages = _messages(ask.turns, stored)
    request = InferenceRequest(services.profile.name, messages, ask.sampling, ask.raw, ask.tools)
    return NewTask(
        TaskId(uuid.uuid4().hex),
        request,
        cost,
        tenant=caller.tenant,
        priority=ask.priority,
        deadline_s=ask.deadline_s,
        delay_s=ask.delay_s,
        weight=caller.allowance.weight,
        quota=caller.quota,
        idempotency=ask.idempotency,
        webhook_url=ask.webhook_url,
        trace=current_trace.get(),
        metadata=ask.metadata,
        same=same_answer(request, caller.tenant, ask.cache, services.settings),
        held=services.holds_pictures,
    )


def _count(services: Services, enqueued: Enqueued, cost: Cost) -> None:
    metrics = services.metrics
    metrics.admitted.inc()
    metrics.admitted_tokens.labels("visual").inc(cost.visual_tokens)
    metrics.admitted_tokens.labels("text").inc(cost.text_tokens)
    if enqueued.reuse is not None:
        metrics.answers_reused.labels(enqueued.reuse.value).inc()


def _check_tools(services: Services, ask: Ask) -> None:
    results = any(turn.calls or turn.role is Role.TOOL for turn in ask.turns)
    if (ask.tools or results) and not services.profile.calls:
        raise InvalidRequestError(NO_TOOLS, param="tools" if ask.tools else "messages")


def _check_text(texts: Sequence[str]) -> None:
    try:
        for text in texts:
            text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequestError("the text holds half of a character") from error


def _price(services: Services, picture: RawPicture) -> PricedPicture:
    side = min(picture.side or services.settings.image_side, services.settings.image_side)
    return price_picture(read_header(picture.content), side, services.profile.rules)


def _messages(turns: Sequence[Turn], stored: Sequence[ImagePart]) -> tuple[Message, ...]:
    pictures = iter(stored)

    def part(raw: str | RawPicture | PictureUrl) -> Part:
        return TextPart(raw) if isinstance(raw, str) else next(pictures)

    return tuple(
        Message(turn.role, tuple(part(raw) for raw in turn.parts), turn.calls, turn.call_id)
        for turn in turns
    )
