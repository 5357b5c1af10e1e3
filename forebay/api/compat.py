"""The queue service's contract: ``POST /predict`` and ``GET /result``, as its clients know them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from starlette.responses import JSONResponse

from forebay.api.answers import elapsed_ms, failure_of
from forebay.api.dependencies import CallerOf, ServicesOf, let_in
from forebay.api.intake import Ask, Turn, submit
from forebay.api.own_tasks import own_task
from forebay.api.pictures import RawPicture
from forebay.api.plain_route import PlainRoute
from forebay.api.priorities import read_priority
from forebay.api.reuse import cache_header, cache_wishes
from forebay.api.route_docs import NOT_BLANK, form_body, inlined_properties
from forebay.api.sampling_form import SamplingForm, form_of_texts, sampling_params, texts_of
from forebay.api.services import Services
from forebay.api.upload import FormBounds, UploadForm, read_upload
from forebay.core.errors import InvalidRequestError, MissingPartError
from forebay.core.request import PRIORITY_FORMS, Priority, Role, TaskId
from forebay.queue.ports import TaskRecord

router = APIRouter(tags=["queue service"])
plain = APIRouter(tags=["queue service"], route_class=PlainRoute)

_OWN = ("image", "prompt", "priority", "image_lossless")
_KNOWN = frozenset(_OWN) | frozenset(SamplingForm.model_fields)
_BOUNDS = FormBounds(files=1, texts=500)
_FORM = form_body(
    {
        "image": {"type": "string", "format": "binary"},
        "prompt": {"type": "string", "pattern": NOT_BLANK},
        "priority": {"type": "string", "enum": list(PRIORITY_FORMS)},
        "image_lossless": {"type": "boolean"},
        **inlined_properties(SamplingForm),
    },
    required=["image", "prompt"],
)
_TASK_ID = {
    "name": "task_id",
    "in": "query",
    "required": True,  # told here, and refused below in the words of the contract
    "schema": {"type": "string", "minLength": 1},
}


@plain.post("/predict", openapi_extra=_FORM, response_model=dict[str, Any])
async def predict(request: Request) -> Response:
    """Take a picture and a question (multipart ``image`` and ``prompt``) into the queue.

    A list is a field sent several times; an object is JSON.
    """
    services, caller = await let_in(request)
    enqueued = await submit(services, await _ask(request, services), caller)
    submitted = {
        "status": "submitted",
        "task_id": enqueued.task_id,
        "message": f"Task accepted; ask GET /result?task_id={enqueued.task_id} for the answer.",
    }
    return JSONResponse(submitted, headers=cache_header(enqueued))


async def _ask(request: Request, services: Services) -> Ask:
    form = await read_upload(request, _BOUNDS)
    if unknown := form.names() - _KNOWN:
        field = min(unknown)
        raise InvalidRequestError(f"the field {field!r} is not supported here", param=field)
    content, prompt = form.get("image"), form.get("prompt")
    if not isinstance(content, bytes) or not isinstance(prompt, str) or not prompt.strip():
        raise MissingPartError("Missing image or prompt")
    sampling = await sampling_params(_sampling_form(form), services.settings)
    priority, lossless = _priority(form), _lossless(form)
    if not content:
        raise MissingPartError("Missing image or prompt")
    turn = Turn(Role.USER, (RawPicture(content, lossless=lossless), prompt))
    return Ask((turn,), sampling, priority=priority, cache=cache_wishes(request.headers))


@router.get("/result", openapi_extra={"parameters": [_TASK_ID]})
async def result(
    services: ServicesOf,
    caller: CallerOf,
    task_id: Annotated[str, Query(include_in_schema=False)] = "",
) -> dict[str, Any]:
    """Return a task's answer, or that it is pending."""
    if not task_id:
        raise MissingPartError("Missing task_id")
    return _result(await own_task(services, caller, TaskId(task_id)))


def _result(record: TaskRecord) -> dict[str, Any]:
    if not record.state.final:
        return {"status": "pending", "task_id": record.task_id}
    if record.text is None:
        return {
            "task_id": record.task_id,
            "status": "error",
            "error": failure_of(record)[1],
            "model": record.model,
        }
    return {
        "task_id": record.task_id,
        "status": "success",
        "response": record.text,
        "elapsed_ms": elapsed_ms(record),
        "model": record.model,
    }


def _sampling_form(form: UploadForm) -> SamplingForm:
    return form_of_texts(SamplingForm, texts_of(form.items, but=_OWN))


def _priority(form: UploadForm) -> Priority:
    given = form.get("priority")
    return read_priority("a file" if isinstance(given, bytes) else given)


def _lossless(form: UploadForm) -> bool:
    given = form.get("image_lossless", "false")
    if given not in ("true", "false"):
        raise InvalidRequestError("image_lossless must be true or false", param="image_lossless")
    return given == "true"
