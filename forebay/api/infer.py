"""``POST /v1/infer``: a picture and a question in, the answer out, in one call."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from forebay.access.caller import Caller
from forebay.api.answers import elapsed_ms
from forebay.api.dependencies import CallerOf, OpenDoor
from forebay.api.disconnect import CLIENT_CLOSED_REQUEST
from forebay.api.intake import submit
from forebay.api.middleware.body_limit import let_go
from forebay.api.question import QuestionForm, question_docs, read_question
from forebay.api.sampling_form import sampling_params
from forebay.api.services import Services
from forebay.api.taken import Taken
from forebay.queue.ports import TaskRecord

router = APIRouter(tags=["infer"])


@router.post("/v1/infer", openapi_extra=question_docs(QuestionForm))
async def infer(request: Request, services: OpenDoor, caller: CallerOf) -> Response:
    """Answer a question about a picture: JSON, multipart, or the picture's file as the body.

    Beside a file the fields are in the query, and the prompt there or in `X-Prompt`.
    """
    taken = await _take(request, services, caller)
    let_go(request)
    record = await taken.answer(request, services)
    if record is None:
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    return JSONResponse(_answer(record), headers=taken.headers)


async def _take(request: Request, services: Services, caller: Caller) -> Taken:
    """Submit what is asked; nothing of the body is kept."""
    question = await read_question(request, QuestionForm)
    sampling = await sampling_params(question.form, services.settings)
    ask = question.ask(sampling, question.form.prompt)
    return Taken(await submit(services, ask, caller), lasting=ask.idempotency is not None)


def _answer(record: TaskRecord) -> dict[str, Any]:
    return {
        "task_id": record.task_id,
        "status": "success",
        "response": record.text,
        "elapsed_ms": elapsed_ms(record),
        "model": record.model,
        "usage": record.usage.to_dict() if record.usage else None,
    }
