"""Which other web pages may call from a browser: none, unless the settings name them."""

from __future__ import annotations

from typing import Final

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from forebay.api.middleware.request_id import HEADER as REQUEST_ID
from forebay.api.preferences import KEY_HEADER, REPLAYED_HEADER, TASK_HEADER
from forebay.api.reuse import CACHE_HEADER
from forebay.api.services import DoorSettings

_SENT: Final = (
    "Authorization", "X-API-Key", "Content-Type", KEY_HEADER, "Prefer", "Last-Event-ID",
    "Cache-Control", REQUEST_ID,
)  # fmt: skip
_READ: Final = (
    REQUEST_ID, "Retry-After", "Location", "WWW-Authenticate", TASK_HEADER,
    REPLAYED_HEADER, CACHE_HEADER, "Preference-Applied",
)  # fmt: skip


def add_cors(app: FastAPI, settings: DoorSettings) -> None:
    """Answer the questions that browsers ask on behalf of the pages of ``cors_origins``."""
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_credentials=settings.cors_credentials,
            allow_methods=("GET", "POST", "DELETE"),
            allow_headers=_SENT,
            expose_headers=_READ,
        )
