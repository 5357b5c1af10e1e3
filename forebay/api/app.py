"""The web application: its routes, its middlewares in order, and its composition from settings."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from forebay import __version__
from forebay.api import admin, chat, compat, health, infer, models, multimodal, tasks
from forebay.api import admin_log_level as log_level
from forebay.api.alerts import routes as alerts
from forebay.api.batches import routes as batches
from forebay.api.canary import routes as canary
from forebay.api.completions import routes as completions
from forebay.api.composition import open_services
from forebay.api.console import figures, limits, workers
from forebay.api.console import tasks as admin_tasks
from forebay.api.cors import add_cors
from forebay.api.error_forms import install_error_forms
from forebay.api.files import routes as files
from forebay.api.front_page import FrontPageMiddleware
from forebay.api.middleware.access import AccessMiddleware
from forebay.api.middleware.access_log import AccessLogMiddleware
from forebay.api.middleware.body_limit import BodyLimitMiddleware
from forebay.api.middleware.last_resort import LastResortMiddleware
from forebay.api.middleware.request_id import RequestIdMiddleware
from forebay.api.middleware.trace import TraceMiddleware
from forebay.api.openapi import install_openapi
from forebay.api.page import install_page
from forebay.api.responses import routes as responses
from forebay.api.route_docs import install_docs
from forebay.api.services import Services
from forebay.api.slashes import install_slashes
from forebay.config import Settings
from forebay.core.neighbours import Neighbours

_FORM_BYTES = 2**16
"""What a multipart form may have around its file."""


def create_app(services: Services) -> FastAPI:
    """Return the application. Who calls it starts and stops what ``services`` holds."""
    app = FastAPI(
        title="Forebay",
        version=__version__,
        summary="Burst-proof serving for a vision-language model",
        openapi_url=None,  # the framework's own would be made while everybody waits
        docs_url=None,  # its own pages load their scripts from another host
        redoc_url=None,
    )
    app.state.services = services
    install_error_forms(app)
    app.include_router(compat.plain)  # the first is found soonest
    openai = (chat, completions, responses, models, files, batches)
    console = (figures, workers, admin_tasks, limits)
    ours = (tasks, infer, multimodal, compat, health, admin, log_level, alerts, canary)
    for route in (*openai, *ours, *console):
        app.include_router(route.router)
    install_page(app)
    install_docs(app, install_openapi(app, services.gate))
    install_slashes(app)
    # the last added is the outermost: the id is there for the log's line, the line counts even the
    # last resort's answer, browsers may read refusals too, and a body over the limit is an error of
    # the route that reads it, which only callers who may come in do
    app.add_middleware(
        BodyLimitMiddleware,
        max_bytes=services.settings.max_body_bytes,
        held=services.held,
        on_disk={"/v1/files": services.settings.max_file_bytes + _FORM_BYTES},
        timeout_s=services.settings.body_timeout_s,
    )
    app.add_middleware(AccessMiddleware, gate=services.gate, metrics=services.metrics)
    add_cors(app, services.settings)
    app.add_middleware(LastResortMiddleware)
    app.add_middleware(AccessLogMiddleware, metrics=services.metrics)
    app.add_middleware(TraceMiddleware, spans=services.spans, sample=services.trace_sample)
    app.add_middleware(RequestIdMiddleware)
    if services.settings.front_pages:
        app.add_middleware(FrontPageMiddleware, pages=services.settings.front_pages)
    return app


@asynccontextmanager
async def build(
    settings: Settings, name: str = "api", neighbours: Neighbours | None = None
) -> AsyncIterator[FastAPI]:
    """Compose the application from ``settings``, with everything it needs running.

    ``name``: of this process, and of no other at its port of this machine. ``neighbours``: the
    others there.

    Raises:
        ProfileError: the model's folder cannot be read.
        PromptsError: the folder of prompt templates cannot be used.
        ValueError: no queue_url is set.
        SettingsError: the file of the webhooks' secrets cannot be read, or anyone could come in.
        AccessSetupError: a key or secret of those who may come in cannot be used.
        QueueSetupError, QueueUnavailableError: the queue's server cannot be used.
    """
    async with open_services(settings, name, neighbours) as services:
        yield create_app(services)
