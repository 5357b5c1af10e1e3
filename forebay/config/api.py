"""The settings of the API: where it listens, and what a request may bring and ask."""

from __future__ import annotations

from pydantic import Field

from forebay.config.group import SettingsGroup


class ApiSettings(SettingsGroup):
    """Where the API listens, and the bounds of one request and of all together."""

    host: str = Field("127.0.0.1", description="Address that the API listens on.")
    port: int = Field(8080, ge=1, le=65535, description="Port that the API listens on.")
    max_body_bytes: int = Field(20 * 2**20, ge=1024, description="Largest request body.")
    body_timeout_s: float = Field(
        60.0, gt=0, description="How long a request's body may take to arrive."
    )
    max_inflight_bytes: int = Field(
        2**30,
        ge=1024,
        description="Bytes of bodies, of every copy of them and of fetched pictures that the API "
        "holds at once; at least `max_body_bytes`. More requests are refused for the moment. A "
        "body of JSON counts four times, a form's file once or twice.",
    )
    max_file_bytes: int = Field(
        100 * 2**20, ge=1024, description="Largest file of requests that may be uploaded."
    )
    files_bytes: int = Field(
        10 * 2**30, ge=2**20, description="Bytes that uploaded files and batches' outputs may take."
    )
    batch_lines: int = Field(50_000, ge=1, description="Requests in one batch.")
    batch_window: int = Field(
        32, ge=1, le=1024, description="Requests of one batch that are in the queue at once."
    )
    max_image_pixels: int = Field(50_000_000, ge=1, description="Largest picture, width x height.")
    max_images: int = Field(16, ge=1, description="Pictures in one request.")
    image_side: int = Field(1024, ge=28, description="Longest side of a stored picture.")
    image_quality: int = Field(85, ge=1, le=100, description="JPEG quality of a stored picture.")
    image_processes: int = Field(
        2,
        ge=1,
        le=64,
        description="Processes that decode pictures, shared out among the API's own, each of "
        "which has one at least.",
    )
    max_tokens_default: int = Field(256, ge=1, description="Answer tokens when none are asked.")
    max_tokens_limit: int = Field(2048, ge=1, description="Most answer tokens one may ask.")
    max_choices: int = Field(8, ge=1, le=128, description="Most answers (`n`) one may ask.")
    answer_timeout_s: float = Field(
        600.0, gt=0, description="How long a plain (unstreamed) call waits for its answer."
    )
