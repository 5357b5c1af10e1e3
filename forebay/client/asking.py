"""What a task asks for, as it goes over the wire: a form with files, or JSON."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Final, Literal, TypedDict

Picture = bytes | PathLike[str] | str
"""The bytes of a file, where it lies here, or, as text, its URL (``data:`` too)."""

_URLS: Final = ("http://", "https://", "data:")


class Options(TypedDict, total=False):
    """Everything else that a task may say; docs/tasks-api.md and docs/sampling.md tell of each."""

    model: str
    priority: Literal["vip", "normal", "batch"] | int
    deadline_s: float
    delay_s: float
    metadata: Mapping[str, str]
    webhook_url: str
    image_lossless: bool
    max_tokens: int
    max_completion_tokens: int
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    seed: int
    stop: str | Sequence[str]
    stop_token_ids: Sequence[int]
    min_tokens: int
    ignore_eos: bool
    n: int
    logprobs: bool
    top_logprobs: int
    response_format: Mapping[str, Any]
    structured_outputs: Mapping[str, Any]
    guided_json: Mapping[str, Any] | str
    guided_regex: str
    guided_choice: Sequence[str]


async def request_parts(
    prompt: str | None,
    image: Picture | Sequence[Picture] | None,
    messages: Sequence[Mapping[str, Any]] | None,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the body as httpx takes it. Files are read here, once, off the event loop.

    Raises:
        ValueError: neither ``prompt`` nor ``messages``, or both; an ``image`` without a prompt; a
            text that is no URL.
        OSError: a file cannot be read.
    """
    if (prompt is None) is (messages is None):
        raise ValueError("give a prompt, with or without pictures, or messages")
    said = {name: value for name, value in options.items() if value is not None}
    pictures = [await _read(one) for one in _listed(image)]
    if messages is not None:
        if pictures:
            raise ValueError("pictures of messages stand in them, as image_url")
        return {"json": {"messages": list(messages), **said}}
    if not pictures:
        return {"json": {"prompt": prompt, **said}}
    if any(isinstance(one, str) for one in pictures):
        parts = [{"type": "image_url", "image_url": {"url": _url(one)}} for one in pictures]
        content = [*parts, {"type": "text", "text": prompt}]
        return {"json": {"messages": [{"role": "user", "content": content}], **said}}
    files = [("image", (f"picture-{at}", one)) for at, one in enumerate(pictures)]
    fields = {name: _field(value) for name, value in said.items()}
    return {"data": {"prompt": prompt, **fields}, "files": files}


def _listed(image: Picture | Sequence[Picture] | None) -> Sequence[Picture]:
    if image is None:
        return ()
    return (image,) if isinstance(image, bytes | str | PathLike) else image


async def _read(picture: Picture) -> bytes | str:
    if isinstance(picture, bytes):
        return picture
    if isinstance(picture, str):
        if not picture[:8].lower().startswith(_URLS):
            # a text may come from strangers: it must not name a file that is then sent away
            raise ValueError("a picture as text is its URL; for a file give pathlib.Path(...)")
        return picture
    return await asyncio.to_thread(Path(picture).read_bytes)


def _url(picture: bytes | str) -> str:
    if isinstance(picture, str):
        return picture
    return "data:application/octet-stream;base64," + base64.b64encode(picture).decode("ascii")


def _field(value: Any) -> str | list[str]:
    """Return a field of a form: objects as JSON, lists as the field several times."""
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence):
        return [str(one) for one in value]
    return json.dumps(dict(value) if isinstance(value, Mapping) else value)
