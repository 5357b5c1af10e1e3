"""What ``POST /v1/tasks`` takes, as JSON or as a multipart form, read into the door's own words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from fastapi import Request
from pydantic import Field, ValidationError
from starlette.datastructures import FormData, UploadFile

from forebay.api.charsets import form_charset
from forebay.api.chat_fields import HARMLESS, refuse_unsupported
from forebay.api.chat_form import AnswersForm, Messages, chat_sampling, json_object, to_turns
from forebay.api.data_url import picture_in
from forebay.api.intake import Ask, Turn
from forebay.api.middleware.body_limit import hold_files, read_parsed
from forebay.api.picture_urls import PictureUrl
from forebay.api.pictures import RawPicture
from forebay.api.preferences import KEY_HEADER, form_content, idempotency_of
from forebay.api.priorities import read_priority
from forebay.api.sampling_form import OBJECTS, form_of_texts, refusal, texts_of
from forebay.api.services import DoorSettings
from forebay.core.errors import InvalidRequestError, MissingPartError
from forebay.core.request import Role
from forebay.queue.ports import Idempotency

LONGEST_DELAY_S: Final = 86_400
LONGEST_DEADLINE_S: Final = 7 * 86_400
LONGEST_URL: Final = 2048

_MOST_FORM_FIELDS: Final = 500
_FILES: Final = frozenset({"image"})


class TaskForm(AnswersForm):
    """What is asked (``messages``, or ``prompt`` with or without ``image``), and on which terms.

    ``image`` is a data URL, base64, or a URL where these are fetched; ``image_lossless``: it is not
    compressed any further. ``deadline_s``: seconds from now after which it must not
    start. ``delay_s``: seconds from now before which it must not. ``metadata`` is given back.
    """

    model: str | None = None
    messages: Messages | None = None
    image: str | None = None
    prompt: str | None = None
    image_lossless: bool | None = None
    priority: str | int | None = None
    deadline_s: float | None = Field(default=None, gt=0, le=LONGEST_DEADLINE_S)
    delay_s: float | None = Field(default=None, ge=0, le=LONGEST_DELAY_S)
    webhook_url: str | None = Field(default=None, min_length=1, max_length=LONGEST_URL)


FIELDS: Final = frozenset(TaskForm.model_fields)


async def read_task(request: Request, settings: DoorSettings, *, most_images: int) -> Ask:
    """Return what a request asks for, whichever of the two forms it has.

    Raises:
        InvalidRequestError, MissingPartError: naming what is wrong, and what it may be.
        InvalidConstraintError: of the form that the answer must have.
    """
    kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        form_charset(request.headers["Content-Type"])
        async with request.form(max_files=most_images, max_fields=_MOST_FORM_FIELDS) as form:
            hold_files(request, form, digested=KEY_HEADER in request.headers)
            return await _read_multipart(request, form, settings)
    if kind in ("", "application/json"):
        return await _read_json(request, settings)
    raise InvalidRequestError(
        f"the body is {kind[:50]}; send application/json or multipart/form-data",
        param="Content-Type",
    )


async def _read_json(request: Request, settings: DoorSettings) -> Ask:
    raw, body = await read_parsed(request, json_object)
    refuse_unsupported(raw, FIELDS)
    known = {name: value for name, value in raw.items() if name in FIELDS}
    try:
        form = TaskForm.model_validate(known)
    except ValidationError as error:
        raise refusal(error) from error
    lossless = bool(form.image_lossless)
    images = [] if form.image is None else [picture_in(form.image, "image", lossless=lossless)]
    return await _ask(form, images, settings, idempotency_of(request, [body]))


async def _read_multipart(request: Request, raw: FormData, settings: DoorSettings) -> Ask:
    unknown = set(raw) - FIELDS - HARMLESS
    if unknown:
        field = min(unknown)
        raise InvalidRequestError(f"the field {field!r} is not supported here", param=field)
    texts = texts_of(raw.multi_items(), but=_FILES | (HARMLESS - FIELDS))
    form = form_of_texts(TaskForm, texts, OBJECTS | {"messages", "metadata"})
    lossless = bool(form.image_lossless)
    images = [RawPicture(await _uploaded(file), lossless=lossless) for file in raw.getlist("image")]
    content = await form_content(raw) if KEY_HEADER in request.headers else ()
    return await _ask(form, images, settings, idempotency_of(request, content))


async def _uploaded(file: UploadFile | str) -> bytes:
    if isinstance(file, str):
        raise InvalidRequestError("image must be a file", param="image")
    content = await file.read()
    if not content:
        raise MissingPartError("the image is empty", param="image")
    return content


async def _ask(
    form: TaskForm,
    images: Sequence[RawPicture | PictureUrl],
    settings: DoorSettings,
    idempotency: Idempotency | None,
) -> Ask:
    if form.deadline_s is not None and form.deadline_s <= (form.delay_s or 0):
        raise InvalidRequestError(
            f"deadline_s is {form.deadline_s:g}, it must be over delay_s, which is "
            f"{form.delay_s or 0:g}",
            param="deadline_s",
        )
    return Ask(
        turns=_turns(form, images),
        sampling=await chat_sampling(form, settings),
        model=form.model,
        priority=read_priority(form.priority),
        deadline_s=form.deadline_s,
        delay_s=form.delay_s or 0.0,
        webhook_url=form.webhook_url,
        metadata=form.metadata or {},
        idempotency=idempotency,
    )


def _turns(form: TaskForm, images: Sequence[RawPicture | PictureUrl]) -> tuple[Turn, ...]:
    if form.messages is not None:
        if images or form.prompt is not None:
            raise InvalidRequestError(
                "send messages, or prompt with an image, not both", param="messages"
            )
        return to_turns(form.messages, lossless=bool(form.image_lossless))
    if form.prompt is None or not form.prompt.strip():
        raise MissingPartError("send messages, or prompt with or without an image", param="prompt")
    return (Turn(Role.USER, (*images, form.prompt)),)
