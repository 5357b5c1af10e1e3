"""The one place where an error takes the form that a contract's clients expect."""

from __future__ import annotations

import math
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.routing import Match

from forebay.api.disconnect import CLIENT_CLOSED_REQUEST
from forebay.core.errors import (
    BodyTooSlowError,
    ForebayError,
    InvalidRequestError,
    MissingPartError,
    NoSuchRouteError,
    NotAuthenticatedError,
    QueueUnavailableError,
)

log = structlog.get_logger(__name__)

_OPENAI_PATHS = "/v1/"
_DEFAULT_RETRY_AFTER_S = 1
_METHODS = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
_REALM = 'Bearer realm="forebay"'


def error_response(path: str, error: ForebayError, status: int | None = None) -> Response:
    """Return ``error`` as the contract of ``path`` has it; ``status`` overrides the class's own."""
    form = openai_form if path.startswith(_OPENAI_PATHS) else compat_form
    headers = {}
    if error.retryable or error.retry_after is not None:
        wait = error.retry_after or _DEFAULT_RETRY_AFTER_S
        headers["Retry-After"] = str(max(1, math.ceil(wait)))
    if isinstance(error, NotAuthenticatedError):
        # RFC 6750: without credentials nothing is said to be wrong with them
        headers["WWW-Authenticate"] = _REALM + (', error="invalid_token"' if error.given else "")
    if isinstance(error, BodyTooSlowError):
        headers["Connection"] = "close"  # the rest of the body would hold it open
    return JSONResponse(form(error), status_code=status or error.status, headers=headers)


def openai_form(error: ForebayError) -> dict[str, Any]:
    """Return the body that OpenAI clients read."""
    return {
        "error": {
            "message": told_to_clients(error),
            "type": "invalid_request_error" if error.status < 500 else "server_error",
            "param": error.param,
            "code": error.code,
        }
    }


def compat_form(error: ForebayError) -> dict[str, Any]:
    """Return the body of the queue service: a sentence, and the code for programs.

    A missing part is the one case that the service's own clients know; its body is kept exact.
    """
    if isinstance(error, MissingPartError):
        return {"error": told_to_clients(error)}
    return {"error": told_to_clients(error), "code": error.code}


def told_to_clients(error: ForebayError) -> str:
    """Return what a client may read; where the queue's server lies is for the log alone."""
    if isinstance(error, QueueUnavailableError):
        log.warning("queue.unavailable", reason=error.message)
        return "the queue cannot be reached for the moment"
    return error.message


def install_error_forms(app: FastAPI) -> None:
    """Answer every error of the routes, and of the framework, in these forms."""
    app.add_exception_handler(ForebayError, _forebay_error)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(ClientDisconnect, _client_gone)


async def _forebay_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ForebayError)
    return error_response(request.url.path, error)


async def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code in (404, 405):
        message = f"{request.method} {request.url.path}: {error.detail}"
        answer = error_response(request.url.path, NoSuchRouteError(message), error.status_code)
    else:
        refusal = InvalidRequestError(str(error.detail))
        answer = error_response(request.url.path, refusal, error.status_code)
    answer.headers.update(error.headers or {})
    if error.status_code == 405:
        answer.headers["Allow"] = ", ".join(_methods_of(request))
    return answer


def _methods_of(request: Request) -> list[str]:
    """Return what a path takes: the framework names the methods of its first route alone."""
    return [
        method
        for method in _METHODS
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL
            for route in request.app.routes
        )
    ]


async def _client_gone(request: Request, error: Exception) -> Response:
    """The client hung up in the middle of its body: no fault of ours, and no line of an error."""
    del request, error
    return Response(status_code=CLIENT_CLOSED_REQUEST)


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"][1:])
    refusal = InvalidRequestError(f"{field}: {first['msg']}", param=field)
    return error_response(request.url.path, refusal)
