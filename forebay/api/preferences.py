"""Request headers that change how a request is taken: ``Idempotency-Key`` and ``Prefer``."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Iterable
from typing import Final

from fastapi import Request
from starlette.datastructures import FormData, UploadFile

from forebay.api.reuse import cache_header
from forebay.core.errors import InvalidRequestError
from forebay.queue.ports import Enqueued, Idempotency

KEY_HEADER: Final = "Idempotency-Key"
REPLAYED_HEADER: Final = "Idempotent-Replayed"
TASK_HEADER: Final = "X-Forebay-Task-Id"

_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_WAIT = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?(\d{1,9})\"?\s*(?=$|[,;])", re.IGNORECASE)


def idempotency_of(request: Request, content: Iterable[bytes]) -> Idempotency | None:
    """Return what makes the request the same one when it is sent again; None without the header.

    ``content``: all that is asked. The path counts too: a key belongs to one kind of request.

    Raises:
        InvalidRequestError: the header is there twice, or is not of 1 to 255 visible characters.
    """
    given = request.headers.getlist(KEY_HEADER)
    if not given:
        return None
    if len(given) > 1 or not _KEY.fullmatch(given[0]):
        raise InvalidRequestError(
            f"{KEY_HEADER} must be there once, with 1 to 255 visible ASCII characters",
            param=KEY_HEADER,
        )
    digest = hashlib.sha256(request.url.path.encode())
    for part in content:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return Idempotency(given[0], digest.hexdigest())


async def form_content(form: FormData) -> list[bytes]:
    """Return what a multipart form says, without the boundaries, which change with every sending.

    Files are left at their beginning.
    """
    return [part async for part in _form_parts(form)]


async def _form_parts(form: FormData) -> AsyncIterator[bytes]:
    for name, value in form.multi_items():
        yield name.encode()
        if isinstance(value, UploadFile):
            await value.seek(0)
            yield await value.read()
            await value.seek(0)
        else:
            yield value.encode()


def preferred_wait_s(request: Request) -> int | None:
    """Return N of ``Prefer: wait=N`` (RFC 7240), None where there is none that can be read.

    The standard has a server ignore preferences that it does not understand; the first one counts.
    """
    found = _WAIT.search(",".join(request.headers.getlist("Prefer")))
    return int(found.group(1)) if found else None


def task_headers(enqueued: Enqueued) -> dict[str, str]:
    """Return what lets a client go over to the tasks API, or see that it was not asked twice."""
    headers = {TASK_HEADER: str(enqueued.task_id), **cache_header(enqueued)}
    return headers if enqueued.fresh else {**headers, REPLAYED_HEADER: "true"}
