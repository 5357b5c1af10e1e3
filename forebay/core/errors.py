"""Every error that a client can meet: its HTTP meaning, its code, and whether to try again.

``docs/errors.md`` is generated from the classes of this file, and a test holds the two together.
"""

from __future__ import annotations

from typing import ClassVar


class ForebayError(Exception):
    """Base of the errors that a client is told about.

    ``status``: HTTP status. ``code``: stable word for programs. ``retryable``: whether the same
    request may succeed later. ``mend``: what to do, for the error's page. ``retry_after``:
    seconds to wait before the next try, where it is known. ``param``: the request's field at fault.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    retryable: ClassVar[bool] = False
    mend: ClassVar[str] = "Read the server's log for the request id and report it."

    def __init__(
        self, message: str, *, retry_after: float | None = None, param: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after
        self.param = param


class InvalidRequestError(ForebayError):
    """The request is not of the documented form (bad JSON, wrong type, unsupported field)."""

    status = 400
    code = "invalid_request"
    mend = "Correct the field that the message names; the form is in /docs."


class MissingPartError(InvalidRequestError):
    """A part or field that the request needs is not there."""

    code = "missing_part"
    mend = "Send the missing part; `/predict` takes multipart `image` and `prompt`."


class InvalidConstraintError(InvalidRequestError):
    """The JSON schema, expression or list that an answer must follow is wrong or too complex."""

    code = "invalid_constraint"
    mend = "Correct the keyword or the place that the message names, or ask for something simpler."


class NotAuthenticatedError(ForebayError):
    """The request brings no API key or token, or one that is not good here.

    ``given``: whether it brought one.
    """

    status = 401
    code = "unauthorized"
    mend = "Send a good key or token: `Authorization: Bearer KEY`. `forebay keys` makes keys."

    def __init__(self, message: str, *, given: bool = False) -> None:
        super().__init__(message)
        self.given = given


class ForbiddenError(ForebayError):
    """The caller is known, and may not do this: the message names the scope or bound."""

    status = 403
    code = "forbidden"
    mend = "Use a key with the scope that the message names, or ask for what this one may have."


class AddressNotAllowedError(ForebayError):
    """The client's address is not in the list of those that may do this."""

    status = 403
    code = "address_not_allowed"
    mend = "Call from an allowed network; operators: the allow_... settings, and trusted_proxies."


class KeysUnavailableError(ForebayError):
    """The keys by which tokens are verified cannot be fetched from their issuer."""

    status = 503
    code = "keys_unavailable"
    retryable = True
    mend = "Wait for Retry-After; operators: see that jwt_jwks_url answers."


class KeyNotFoundError(ForebayError):
    """No such API key: never made here, or it has ended."""

    status = 404
    code = "key_not_found"
    mend = "Check the id; `forebay keys list` names every key."


class SilenceNotFoundError(ForebayError):
    """No such silence of alerts: never made here, or it has ended."""

    status = 404
    code = "silence_not_found"
    mend = "Check the id; GET /v1/admin/alerts lists the silences."


class ModelNotFoundError(ForebayError):
    """The request names a model that is not served here."""

    status = 404
    code = "model_not_found"
    mend = "Use a name that GET /v1/models lists."


class NoSuchRouteError(ForebayError):
    """No such path, or not with this method."""

    status = 404
    code = "no_such_route"
    mend = "The paths are listed at /docs."


class TaskNotFoundError(ForebayError):
    """No such task: never accepted here, or its result has expired."""

    status = 404
    code = "task_not_found"
    mend = "Check the id; results are kept for an hour by default. Send the request again."


class WorkerNotFoundError(ForebayError):
    """No such worker: none has reported under this id lately."""

    status = 404
    code = "worker_not_found"
    mend = "Check the id; GET /v1/admin/workers lists every worker."


class NoSupervisorError(ForebayError):
    """No supervisor runs that could start or end workers."""

    status = 409
    code = "no_supervisor"
    mend = "Scale where the workers are started, such as kubectl scale; `forebay serve` obeys here."


class TaskNotDeadError(ForebayError):
    """The task is no dead letter, so its request cannot be sent back."""

    status = 409
    code = "task_not_dead"
    mend = "Only dead letters keep their request; send the others again."


class TaskEndedError(ForebayError):
    """The task has ended already, so there is nothing to cancel."""

    status = 409
    code = "task_ended"
    mend = "Read how it ended with GET /v1/tasks/{id}."


class FileNotHereError(ForebayError):
    """No such file: never uploaded here, deleted, or expired."""

    status = 404
    code = "file_not_found"
    mend = "Check the id; files are kept for 30 days at most. Upload the file again."


class BatchNotFoundError(ForebayError):
    """No such batch: never created here, or forgotten after 30 days."""

    status = 404
    code = "batch_not_found"
    mend = "Check the id; GET /v1/batches lists them."


class BatchEndedError(ForebayError):
    """The batch has ended already, so there is nothing to cancel."""

    status = 409
    code = "batch_ended"
    mend = "Read how it ended with GET /v1/batches/{id}."


class ResponseNotFoundError(ForebayError):
    """No such response: never made here, deleted, made with `store` false, or expired."""

    status = 404
    code = "response_not_found"
    mend = "Check the id; responses are kept as long as results, for an hour by default."


class InvalidImageError(ForebayError):
    """A part that should be a picture is not one of the accepted formats, or is damaged."""

    status = 422
    code = "invalid_image"
    mend = "Send a whole JPEG, PNG, WEBP, GIF or BMP file."


class ImageTooLargeError(ForebayError):
    """A picture has more pixels, or takes more visual tokens, than the limit."""

    status = 413
    code = "image_too_large"
    mend = "Scale the picture down; the message states the limit and the picture's own figure."


class ImageUrlError(ForebayError):
    """A picture's URL may not be asked, or what came from it is no picture's bytes."""

    status = 422
    code = "image_url_failed"
    mend = "Check that the URL is public and answers in time, or send the picture's bytes."


class BodyTooLargeError(ForebayError):
    """The request's body is over the limit in bytes."""

    status = 413
    code = "body_too_large"
    mend = "Send fewer or smaller pictures; the message states the limit."


class BodyTooSlowError(ForebayError):
    """The request's body did not arrive within the time that it has."""

    status = 408
    code = "body_too_slow"
    retryable = True
    mend = "Send it over a faster connection, or smaller pictures; operators: see `body_timeout_s`."


class PromptTooLongError(ForebayError):
    """Prompt, pictures and answer together do not fit the model's context."""

    status = 422
    code = "prompt_too_long"
    mend = "Shorten the prompt, send fewer or smaller pictures, or lower max_tokens."


class QueueFullError(ForebayError):
    """The queue is at its cap; the request was refused and nothing of it was kept."""

    status = 503
    code = "queue_full"
    retryable = True
    mend = "Wait for the seconds of Retry-After and send the request again."


class DoorFullError(ForebayError):
    """The requests being taken in hold as many bytes as they may together."""

    status = 503
    code = "door_full"
    retryable = True
    mend = "Wait for the seconds of Retry-After; operators: see `max_inflight_bytes`."


class TooManyConnectionsError(ForebayError):
    """The client's address has as many connections open as it may."""

    status = 429
    code = "too_many_connections"
    retryable = True
    mend = "Use connections again instead of opening more; operators: address_connections."


class HeadersTooSlowError(ForebayError):
    """The request's first line and headers took too long to come."""

    status = 408
    code = "headers_too_slow"
    mend = "Send the whole request at once; operators: header_timeout_s."


class HeadersTooLargeError(ForebayError):
    """The request's first line and headers have more bytes than the limit."""

    status = 431
    code = "headers_too_large"
    mend = "Send fewer or shorter headers and put what is long into the body."


class TransferCodingError(ForebayError):
    """The body comes in a transfer coding that this server does not undo."""

    status = 501
    code = "unknown_transfer_coding"
    mend = "Send the body as it is: with its Content-Length, or `Transfer-Encoding: chunked` alone."


class RateLimitedError(ForebayError):
    """The tenant, key or address sends faster than it may; nothing of the request was kept."""

    status = 429
    code = "rate_limited"
    retryable = True
    mend = "Wait for the seconds of Retry-After; send at a steadier pace."


class TenantOverQuotaError(ForebayError):
    """The tenant has as much waiting as it may; nothing of the request was kept."""

    status = 429
    code = "tenant_over_quota"
    retryable = True
    mend = "Wait for the seconds of Retry-After, until some of your own tasks have started."


class IdempotencyConflictError(ForebayError):
    """The idempotency key was used before, for a request that asked for something else."""

    status = 409
    code = "idempotency_conflict"
    mend = "Use a new key for a new request; the same key only to repeat the very same one."


class PicturesNotHeldError(ForebayError):
    """The request took so long to come in that its pictures may have been swept meanwhile."""

    status = 503
    code = "pictures_not_held"
    retryable = True
    mend = "Send the request again."


class StorageFullError(ForebayError):
    """There is no room for the request's pictures; nothing of it was kept."""

    status = 507
    code = "storage_full"
    retryable = True
    mend = "Wait for Retry-After; operators: free disk space, or raise the blob store's bound."


class QueueUnavailableError(ForebayError):
    """The queue's server cannot be reached."""

    status = 503
    code = "queue_unavailable"
    retryable = True
    mend = "Wait for Retry-After; operators: `forebay doctor` says what is wrong."


class NotReadyError(ForebayError):
    """No worker with a loaded model has given a sign of life lately."""

    status = 503
    code = "not_ready"
    retryable = True
    mend = "Wait for a worker to load its model; operators: `forebay doctor` says what is wrong."


class TaskTimeoutError(ForebayError):
    """The answer did not come within the time that a plain (unstreamed) call waits."""

    status = 504
    code = "answer_timeout"
    retryable = True
    mend = "Stream the answer, or submit with POST /predict and ask GET /result."


class TaskCancelledError(ForebayError):
    """The task was cancelled by its client."""

    status = 409
    code = "cancelled"
    mend = "Send the request again if it is still wanted."


class TaskExpiredError(ForebayError):
    """The task's deadline passed before it had an answer."""

    status = 504
    code = "expired"
    retryable = True
    mend = "Give a later deadline, or send at a quieter time."


class TaskFailedError(ForebayError):
    """The engine could not answer this request."""

    status = 500
    code = "inference_failed"
    mend = "Read the message; the same request is likely to fail again."


class AnswerTooLargeError(ForebayError):
    """The answer has more bytes than the server keeps for one task."""

    status = 500
    code = "answer_too_large"
    mend = "Ask for fewer tokens (max_tokens) or fewer answers (n); operators: max_answer_bytes."


class UpstreamFailedError(ForebayError):
    """The server behind the worker answered with something that is no answer to this request."""

    status = 502
    code = "upstream_failed"
    mend = "Read the message; operators: `forebay doctor` asks the upstream for an answer."


class AnswerChangedError(ForebayError):
    """A worker died in mid-answer, and the second attempt began with other words than were sent."""

    status = 503
    code = "answer_changed"
    retryable = True
    mend = "Discard what was streamed and send the request again."


class DeadLetterError(ForebayError):
    """The task was delivered three times and each time its worker died or lost it."""

    status = 500
    code = "dead_letter"
    mend = "The request itself may crash the engine; operators: look at the worker's log."


def all_errors() -> list[type[ForebayError]]:
    """Return every error class that a client can meet, the base first, then by definition."""
    found: list[type[ForebayError]] = []
    waiting: list[type[ForebayError]] = [ForebayError]
    while waiting:
        cls = waiting.pop(0)
        found.append(cls)
        waiting.extend(cls.__subclasses__())
    return found


def error_for_code(code: str) -> type[ForebayError]:
    """Return the class of a stored code; an unknown one is an internal error."""
    return next((cls for cls in all_errors() if cls.code == code), ForebayError)
