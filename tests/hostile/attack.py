"""One hostile request: what is sent, byte by byte, and what may come back."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from urllib.parse import quote

SECRET = "s3cr3t-marmot"
"""In every request, where only its client and the model may read it: never in a log."""

PROMPT = f"What is the price? {SECRET}"
_BOUNDARY = "x" * 24


@dataclass(frozen=True)
class Attack:
    """``request``: the bytes of it. ``stalls``: the client sends no more, and waits.

    ``kind``: of the table in ``tests.hostile.attacks``.
    """

    kind: str
    request: bytes = field(repr=False)
    stalls: bool = False
    about: str = ""


Carrier = Callable[[bytes], bytes]
"""A contract's way of sending a picture."""


def post(
    path: str, kind: str, body: bytes, *, length: int | None = None, more: Mapping[str, str] = {}
) -> bytes:
    """Return the bytes of a POST. ``length``: what Content-Length says, where it lies."""
    headers = {
        "Host": "127.0.0.1",  # without a key, any other name is refused at once
        "Content-Type": kind,
        "Content-Length": str(len(body) if length is None else length),
        "Cookie": f"session={SECRET}",
        "Connection": "close",
        **more,
    }
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


def post_json(path: str, raw: object) -> bytes:
    """Return the bytes of a POST of JSON."""
    return post(path, "application/json", json.dumps(raw).encode())


def post_parts(path: str, parts: list[tuple[str, str | None, bytes]], end: str = "--") -> bytes:
    """Return the bytes of a POST of multipart fields: (name, file name or None, content)."""
    out = b""
    for name, file, content in parts:
        named = f'; filename="{file}"' if file else ""
        out += (
            f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'
        ).encode() + content + b"\r\n"  # fmt: skip
    out += f"--{_BOUNDARY}{end}\r\n".encode()
    return post(path, f"multipart/form-data; boundary={_BOUNDARY}", out)


def chat_of(url: str) -> dict[str, object]:
    """Return a conversation about the picture at ``url``."""
    parts = [{"type": "text", "text": PROMPT}, {"type": "image_url", "image_url": {"url": url}}]
    return {"model": "glm-4v-flash", "messages": [{"role": "user", "content": parts}]}


def upload(path: str) -> Carrier:
    return lambda content: post_parts(
        path, [("prompt", None, PROMPT.encode()), ("image", f"{SECRET}.jpg", content)]
    )


def as_body(content: bytes) -> bytes:
    return post("/v1/infer", "image/jpeg", content, more={"X-Prompt": quote(PROMPT)})


def in_json(path: str, prefix: str = "") -> Carrier:
    def carry(content: bytes) -> bytes:
        letters = base64.b64encode(content).decode()
        return post_json(path, {"image": prefix + letters, "prompt": PROMPT})

    return carry


def in_chat(content: bytes) -> bytes:
    letters = base64.b64encode(content).decode()
    return post_json("/v1/chat/completions", chat_of(f"data:image/png;base64,{letters}"))


CARRIERS: tuple[Carrier, ...] = (
    upload("/predict"),
    upload("/v1/infer"),
    upload("/v1/multimodal/inference"),
    upload("/v1/tasks"),
    as_body,
    in_json("/v1/infer"),
    in_json("/v1/multimodal/inference", "data:image/jpeg;base64,"),
    in_json("/v1/tasks"),
    in_chat,
)
"""Every way in for a picture's bytes."""


def carried(kind: str, content: bytes, rng: Random, about: str = "") -> Attack:
    """Return an attack by a picture, over any way in."""
    return Attack(kind, rng.choice(CARRIERS)(content), about=about)
