"""A question about a picture, in any form that clients send: JSON, multipart, the file itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar
from urllib.parse import unquote

from fastapi import Request
from pydantic import Field, ValidationError
from starlette.datastructures import UploadFile

from forebay.api.charsets import form_charset
from forebay.api.chat_fields import HARMLESS, refuse_unsupported
from forebay.api.chat_form import json_object
from forebay.api.data_url import picture_in
from forebay.api.intake import Ask, Turn
from forebay.api.middleware.body_limit import hold_files, read_body, read_parsed
from forebay.api.picture_urls import PictureUrl
from forebay.api.pictures import RawPicture
from forebay.api.preferences import KEY_HEADER, form_content, idempotency_of
from forebay.api.priorities import read_priority
from forebay.api.reuse import CacheWishes, cache_wishes
from forebay.api.route_docs import NOT_BLANK, Schema, header_fields, inlined_properties
from forebay.api.sampling_form import SamplingForm, form_of_texts, refusal, texts_of
from forebay.core.errors import InvalidRequestError, MissingPartError
from forebay.core.request import Role, SamplingParams
from forebay.queue.ports import Idempotency

PROMPT_HEADER: Final = "X-Prompt"
"""Percent-encoded UTF-8: a header cannot hold more than Latin letters."""

_MOST_FIELDS: Final = 500
_FILE_TYPES: Final = ("image/", "application/octet-stream")


class QuestionForm(SamplingForm):
    """``image`` is a data URL, base64, or a URL where these are fetched; or, elsewhere, a file.

    ``image_lossless``: the picture is not compressed any further.
    """

    prompt: str = Field(default="", min_length=0)
    image: str | None = None
    image_lossless: bool | None = None
    model: str | None = None
    priority: str | int | None = None


F = TypeVar("F", bound=QuestionForm)


@dataclass(frozen=True, slots=True)
class Question(Generic[F]):
    """What a request asks, whatever its form."""

    form: F
    picture: RawPicture | PictureUrl | None
    idempotency: Idempotency | None
    cache: CacheWishes

    def ask(self, sampling: SamplingParams, prompt: str) -> Ask:
        """Return it in the door's own words. Raises InvalidRequestError for the priority."""
        parts = (prompt,) if self.picture is None else (self.picture, prompt)
        return Ask(
            (Turn(Role.USER, parts),),
            sampling,
            model=self.form.model,
            priority=read_priority(self.form.priority),
            idempotency=self.idempotency,
            cache=self.cache,
        )


async def read_question(request: Request, form: type[F]) -> Question[F]:
    """Read a request. Its body is not kept.

    Raises:
        InvalidRequestError: naming the field, and what it may be.
        MissingPartError: there is no prompt, or a file is empty.
        InvalidImageError: the picture is not base64.
    """
    kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        question = await _of_multipart(request, form)
    elif kind.startswith(_FILE_TYPES):
        question = await _of_file(request, form)
    elif kind in ("", "application/json"):
        question = await _of_json(request, form)
    else:
        raise InvalidRequestError(
            f"the body is {kind[:50]}; send application/json, multipart/form-data, or the picture "
            "itself as image/*",
            param="Content-Type",
        )
    if not question.form.prompt.strip():
        raise MissingPartError("the prompt is missing", param="prompt")
    return question


async def _of_json(request: Request, form: type[F]) -> Question[F]:
    raw, body = await read_parsed(request, json_object)
    refuse_unsupported(raw, frozenset(form.model_fields))
    known = {name: value for name, value in raw.items() if name in form.model_fields}
    try:
        read = form.model_validate(known)
    except ValidationError as error:
        raise refusal(error) from error
    return _question(request, read, _named_picture(read), [body])


async def _of_multipart(request: Request, form: type[F]) -> Question[F]:
    form_charset(request.headers["Content-Type"])
    async with request.form(max_files=1, max_fields=_MOST_FIELDS) as raw:
        hold_files(request, raw, digested=KEY_HEADER in request.headers)
        content = await form_content(raw) if KEY_HEADER in request.headers else ()
        file = raw.get("image")
        upload = file if isinstance(file, UploadFile) else None
        read = _of_texts(texts_of(raw.multi_items(), but={"image"} if upload else ()), form)
        picture = _picture(await upload.read(), read) if upload else _named_picture(read)
        return _question(request, read, picture, content)


async def _of_file(request: Request, form: type[F]) -> Question[F]:
    texts: dict[str, list[str]] = {}
    for name, value in request.query_params.multi_items():
        texts.setdefault(name, []).append(value)
    header = request.headers.get(PROMPT_HEADER)
    if header is not None:
        texts.setdefault("prompt", []).append(_percent_decoded(header))
    if "image" in texts:
        raise InvalidRequestError("the body is the image; send no other", param="image")
    read = _of_texts(texts, form)
    body = await read_body(request)
    said = str(sorted(texts.items())).encode()
    return _question(request, read, _picture(body, read), [said, body])


def _question(
    request: Request, form: F, picture: RawPicture | PictureUrl | None, content: Iterable[bytes]
) -> Question[F]:
    idempotency = idempotency_of(request, content)
    return Question(form, picture, idempotency, cache_wishes(request.headers))


def _percent_decoded(header: str) -> str:
    try:
        return unquote(header, errors="strict")
    except UnicodeDecodeError as error:
        raise InvalidRequestError(
            f"{PROMPT_HEADER} must be percent-encoded UTF-8", param=PROMPT_HEADER
        ) from error


def _of_texts(texts: Mapping[str, Sequence[str]], form: type[F]) -> F:
    unknown = texts.keys() - form.model_fields.keys() - HARMLESS
    if unknown:
        field = min(unknown)
        raise InvalidRequestError(f"the field {field!r} is not supported here", param=field)
    return form_of_texts(
        form, {name: values for name, values in texts.items() if name not in HARMLESS}
    )


def _picture(content: bytes, form: QuestionForm) -> RawPicture:
    if not content:
        raise MissingPartError("the image is empty", param="image")
    return RawPicture(content, lossless=bool(form.image_lossless))


def _named_picture(form: QuestionForm) -> RawPicture | PictureUrl | None:
    if form.image is None:
        return None
    return picture_in(form.image, "image", lossless=bool(form.image_lossless))


def question_docs(form: type[QuestionForm]) -> dict[str, Any]:
    """Return the ``openapi_extra`` of a route that reads a question."""
    fields = inlined_properties(form)
    upload = {**fields, "image": {"type": "string", "format": "binary"}}
    content: dict[str, Schema] = {
        "application/json": {"schema": _object(fields)},
        "multipart/form-data": {"schema": _object(upload)},
        "image/*": {"schema": {"type": "string", "format": "binary"}},
    }
    return {
        "requestBody": {"required": True, "content": content},
        "parameters": header_fields(KEY_HEADER, PROMPT_HEADER),
    }


def _object(fields: Schema) -> Schema:
    prompt = {"type": "string", "pattern": NOT_BLANK}
    return {"type": "object", "properties": {**fields, "prompt": prompt}, "required": ["prompt"]}
