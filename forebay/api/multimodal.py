"""``POST /v1/multimodal/inference``: the high-concurrency service's contract.

A prompt that a template is for is answered in the template's form, with the model's confidence in
the result; any other prompt freely, in the same envelope.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import JSONResponse, Response

from forebay.access.caller import Caller
from forebay.api.answers import elapsed_ms
from forebay.api.dependencies import CallerOf, OpenDoor
from forebay.api.disconnect import CLIENT_CLOSED_REQUEST
from forebay.api.intake import submit
from forebay.api.middleware.body_limit import let_go
from forebay.api.question import Question, QuestionForm, question_docs, read_question
from forebay.api.review.confidence import ALTERNATIVES, mean_probability, result_probability
from forebay.api.review.template import AnswerForm, PromptTemplate
from forebay.api.review.verdict import read_verdict
from forebay.api.sampling_form import check_logprobs, sampling_params
from forebay.api.services import Services
from forebay.api.taken import Taken
from forebay.core.errors import InvalidRequestError, UpstreamFailedError
from forebay.core.events import FinishReason
from forebay.core.request import SamplingParams
from forebay.queue.ports import TaskRecord

router = APIRouter(tags=["multimodal inference"])

TEMPLATE_HEADER: Final = "X-Forebay-Template"
_DIGITS: Final = 4


class MultimodalForm(QuestionForm):
    """``template``: the name of a prompt template, or `none`; else the prompt's words decide."""

    template: str | None = Field(default=None, max_length=64)


_Said = tuple[str, tuple[str, ...], float | None]
"""Result, reasons, confidence."""


@dataclass(frozen=True, slots=True)
class _Asked:
    taken: Taken
    template: str | None
    form: AnswerForm | None


@router.post("/v1/multimodal/inference", openapi_extra=question_docs(MultimodalForm))
async def inference(request: Request, services: OpenDoor, caller: CallerOf) -> Response:
    """Answer a question about a picture; a review prompt with a result, its reasons and confidence.

    `image` is a URL, a data URL or base64.
    """
    asked = await _take(request, services, caller)
    let_go(request)
    record = await asked.taken.answer(request, services)
    if record is None:
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    headers = asked.taken.headers
    if asked.template is not None:
        headers[TEMPLATE_HEADER] = asked.template
    return JSONResponse(_envelope(record, asked.form), headers=headers)


async def _take(request: Request, services: Services, caller: Caller) -> _Asked:
    """Submit what is asked; nothing of the body is kept."""
    question = await read_question(request, MultimodalForm)
    prompt = question.form.prompt
    sampling = await sampling_params(question.form, services.settings)
    template = _template(question, sampling, services)
    if template is None:
        form, text, sampling = None, prompt, replace(sampling, logprobs=0)
    else:
        form, text = template.form_for(prompt), template.text_for(prompt)
        sampling = replace(sampling, constraint=form.constraint(), logprobs=ALTERNATIVES)
    check_logprobs(sampling)
    ask = question.ask(sampling, text)
    taken = Taken(await submit(services, ask, caller), lasting=ask.idempotency is not None)
    return _Asked(taken, template.name if template else None, form)


def _template(
    question: Question[MultimodalForm], sampling: SamplingParams, services: Services
) -> PromptTemplate | None:
    """Return the template to use. What a request says of its answer's form itself comes first.

    Raises:
        InvalidRequestError: it names a template and says something else besides.
    """
    named = question.form.template
    own = next(
        (
            name
            for name in ("constraint", "stop", "stop_token_ids", "min_tokens", "ignore_eos")
            if getattr(sampling, name)
        ),
        None,
    )
    template = services.prompts.template_for(question.form.prompt, named)
    if own is None or template is None:
        return template
    if named is not None:
        raise InvalidRequestError(
            f"a template says itself what the answer is like and where it ends; send no {own}",
            param="template",
        )
    return None


def _envelope(record: TaskRecord, form: AnswerForm | None) -> dict[str, Any]:
    result, reasons, confidence = _free(record) if form is None else _verdict(record, form)
    return {
        "result": result,
        "reasons": list(reasons),
        "confidence": None if confidence is None else round(confidence, _DIGITS),
        "inference_time_ms": elapsed_ms(record),
        "tokens_generated": record.usage.completion_tokens if record.usage else None,
    }


def _free(record: TaskRecord) -> _Said:
    return record.text or "", (), mean_probability(record.logprobs)


def _verdict(record: TaskRecord, form: AnswerForm) -> _Said:
    verdict = read_verdict(record.text or "", form)
    if verdict is not None:
        return (
            verdict.result,
            verdict.reasons,
            result_probability(record.logprobs, form, verdict.result),
        )
    if record.finish_reason == FinishReason.LENGTH:
        raise InvalidRequestError(
            "the answer reached max_tokens before its result; ask for more", param="max_tokens"
        )
    raise UpstreamFailedError("the answer is not in the form that was asked for")
