"""One question about pictures, its answer streamed, by a client that knows HTTP only."""

from __future__ import annotations

import base64
import json
import mimetypes
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx


class AskError(Exception):
    """The question could not be asked, or has no answer; the message says why."""


def server_at(url: str) -> bool:
    """Whether a Forebay with a warm model answers at ``url``."""
    try:
        reply = httpx.get(f"{url}/health", timeout=1.0, trust_env=False)
        return reply.status_code == httpx.codes.OK and reply.json().get("model_loaded") is True
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, AttributeError):
        return False


def check_pictures(images: Sequence[Path]) -> None:
    """Look whether the pictures can be read, before a server is started for them.

    Raises:
        AskError: one cannot.
    """
    for path in images:
        _image_part(path)


def stream_answer(
    url: str,
    images: Sequence[Path],
    question: str,
    *,
    max_tokens: int | None = None,
    key: str | None = None,
) -> Iterator[str]:
    """Yield the answer's text as it comes; ``key`` is for a server that wants one.

    Raises:
        AskError: a picture cannot be read, the server refused, or the answer broke off.
    """
    content: list[dict[str, Any]] = [_image_part(path) for path in images]
    content.append({"type": "text", "text": question})
    try:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        with httpx.Client(base_url=url, timeout=600.0, trust_env=False, headers=headers) as client:
            body: dict[str, Any] = {
                "model": _model_name(client),
                "messages": [{"role": "user", "content": content}],
                "stream": True,
            }
            if max_tokens is not None:
                body["max_tokens"] = max_tokens
            with client.stream("POST", "/v1/chat/completions", json=body) as reply:
                if not reply.is_success:
                    reply.read()
                    raise AskError(_refusal(reply))
                yield from _texts(_lines(reply.iter_bytes()))
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise AskError(f"{url}: {type(error).__name__}: {error}") from error
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise AskError(f"{url} does not answer as an OpenAI-compatible server does") from error


def _lines(chunks: Iterator[bytes]) -> Iterator[str]:
    """Yield whole lines: other ends than the form's own (U+2028, U+0085 ...) are letters."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line.decode() for line in whole)


def _texts(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            return
        event = json.loads(data)
        if "error" in event:
            raise AskError(str(event["error"].get("message", event["error"])))
        for choice in event.get("choices", ()):
            if text := choice.get("delta", {}).get("content"):
                yield text
    raise AskError("the connection ended before the answer did")


def _image_part(path: Path) -> dict[str, Any]:
    try:
        encoded = base64.b64encode(path.read_bytes()).decode("ascii")
    except OSError as error:
        raise AskError(f"{path}: {error.strerror}") from error
    kind = mimetypes.guess_type(path.name)[0] or "image/jpeg"
    return {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{encoded}"}}


def _model_name(client: httpx.Client) -> str:
    reply = client.get("/v1/models")
    if not reply.is_success:
        raise AskError(_refusal(reply))
    return str(reply.json()["data"][0]["id"])


def _refusal(reply: httpx.Response) -> str:
    try:
        error = reply.json()["error"]
        message = error["message"] if isinstance(error, dict) else error
    except (ValueError, KeyError, TypeError):
        message = reply.text[:300]
    return f"{reply.status_code}: {message}"
