"""``/v1/files``, as OpenAI clients know it."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from starlette.datastructures import FormData, UploadFile
from starlette.responses import FileResponse, Response

from forebay.api.charsets import form_charset
from forebay.api.dependencies import CallerOf, ServicesOf
from forebay.api.files.store import FileStore
from forebay.api.route_docs import form_body
from forebay.api.services import Services
from forebay.core.errors import (
    BodyTooLargeError,
    InvalidRequestError,
    MissingPartError,
    NoSuchRouteError,
)
from forebay.queue.files import LONGEST_TTL_S, FileRecord

router = APIRouter(prefix="/v1/files", tags=["files and batches"])

SHORTEST_TTL_S: Final = 3600
_LONGEST_NAME: Final = 255
_ANCHOR, _SECONDS = "expires_after[anchor]", "expires_after[seconds]"
_OWN: Final = ("file", "purpose", _ANCHOR, _SECONDS)
_FORM: Final = form_body(
    {
        "file": {"type": "string", "format": "binary"},
        "purpose": {"type": "string", "enum": ["batch"]},
        _ANCHOR: {"type": "string", "enum": ["created_at"]},
        _SECONDS: {"type": "integer", "minimum": SHORTEST_TTL_S, "maximum": LONGEST_TTL_S},
    },
    required=["file", "purpose"],
)


class Order(StrEnum):
    """By the time of creation."""

    ASC = "asc"
    DESC = "desc"


@router.post("", openapi_extra=_FORM)
async def create_file(request: Request, services: ServicesOf, caller: CallerOf) -> dict[str, Any]:
    """Upload the input of a batch: JSON lines, one request each."""
    form_charset(request.headers.get("Content-Type", ""))
    async with request.form(max_files=1, max_fields=len(_OWN)) as form:
        file = _checked(form)
        ttl_s = _ttl_s(form)
        most = services.settings.max_file_bytes
        if file.size is not None and file.size > most:
            raise BodyTooLargeError(f"the file has {file.size} bytes, the limit is {most}")
        record = await files_of(services).upload(
            caller.tenant,
            file.file,
            filename=(file.filename or "upload")[:_LONGEST_NAME],
            purpose="batch",
            ttl_s=ttl_s,
        )
    return file_object(record)


@router.get("")
async def list_files(
    services: ServicesOf,
    caller: CallerOf,
    purpose: str | None = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    order: Order = Order.DESC,
    after: str | None = None,
) -> dict[str, Any]:
    """List the files, a page at a time."""
    found = await files_of(services).records.newest_first(caller.tenant)
    if purpose is not None:
        found = [one for one in found if one.purpose == purpose]
    if order is Order.ASC:
        found.reverse()
    if after is not None:
        ids = [one.file_id for one in found]
        if after not in ids:
            raise InvalidRequestError("after must be the id of a file of the list", param="after")
        found = found[ids.index(after) + 1 :]
    page = [file_object(one) for one in found[:limit]]
    return page_of(page, more=len(found) > limit)


@router.get("/{file_id}")
async def get_file(file_id: str, services: ServicesOf, caller: CallerOf) -> dict[str, Any]:
    """Describe a file."""
    return file_object(await files_of(services).find(caller.tenant, file_id))


@router.get("/{file_id}/content")
async def file_content(file_id: str, services: ServicesOf, caller: CallerOf) -> Response:
    """Return what is in a file."""
    files = files_of(services)
    file = await files.find(caller.tenant, file_id)
    path = await files.content(file)
    return FileResponse(path, media_type="application/octet-stream", filename=file.filename)


@router.delete("/{file_id}")
async def delete_file(file_id: str, services: ServicesOf, caller: CallerOf) -> dict[str, Any]:
    """Delete a file. A batch that has begun with it goes on."""
    files = files_of(services)
    await files.delete(await files.find(caller.tenant, file_id))
    return {"id": file_id, "object": "file", "deleted": True}


def files_of(services: Services) -> FileStore:
    """Return where files are kept. Raises NoSuchRouteError where none are."""
    if services.files is None:
        raise NoSuchRouteError("no files are kept here")
    return services.files


def file_object(file: FileRecord) -> dict[str, Any]:
    """Return a file as OpenAI clients read it."""
    return {
        "id": file.file_id,
        "object": "file",
        "bytes": file.size,
        "created_at": file.created_s,
        "expires_at": file.expires_s,
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": None,
    }


def page_of(objects: Sequence[dict[str, Any]], *, more: bool) -> dict[str, Any]:
    """Return a page of a list as OpenAI clients read it."""
    return {
        "object": "list",
        "data": list(objects),
        "first_id": objects[0]["id"] if objects else None,
        "last_id": objects[-1]["id"] if objects else None,
        "has_more": more,
    }


def expiry_s(anchor: Any, seconds: int, param: str) -> int:
    """Return how long a file is kept. Raises InvalidRequestError, naming ``param``."""
    if anchor != "created_at":
        raise InvalidRequestError(f'{param}.anchor must be "created_at"', param=param)
    if not SHORTEST_TTL_S <= seconds <= LONGEST_TTL_S:
        raise InvalidRequestError(
            f"{param}.seconds must be from {SHORTEST_TTL_S} to {LONGEST_TTL_S}", param=param
        )
    return seconds


def _checked(form: FormData) -> UploadFile:
    unknown = set(form) - set(_OWN)
    if unknown:
        field = min(unknown)
        raise InvalidRequestError(f"the field {field!r} is not supported here", param=field)
    file, purpose = form.get("file"), form.get("purpose")
    if not isinstance(file, UploadFile) or not isinstance(purpose, str):
        raise MissingPartError("Missing file or purpose")
    if purpose != "batch":
        raise InvalidRequestError('purpose must be "batch"', param="purpose")
    if not file.size:
        raise InvalidRequestError("the file is empty", param="file")
    return file


def _ttl_s(form: FormData) -> int:
    anchor, seconds = form.get(_ANCHOR), form.get(_SECONDS)
    if anchor is None and seconds is None:
        return LONGEST_TTL_S
    digits = seconds if isinstance(seconds, str) and seconds.isdecimal() else "0"
    return expiry_s(anchor, int(digits[:12]), "expires_after")
