"""The page and the sample pictures: static files of the package, under a strict policy."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

import forebay
from forebay.core.errors import NoSuchRouteError

PACKAGE = Path(forebay.__file__).parent

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        "connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types dompurify"
    ),
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # asked for anew by its ETag: a new release is seen at once
}


class _Files(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        answer = await super().get_response(path, scope)
        answer.headers.update(HEADERS)
        return answer


def install_page(app: FastAPI, package: Path = PACKAGE) -> None:
    """Serve ``/``, ``/ui/*``, ``/samples/*`` and ``/samples.json``."""
    ui, samples = package / "ui", package / "samples"
    app.mount("/ui", _Files(directory=ui, check_dir=False))
    app.mount("/samples", _Files(directory=samples, check_dir=False))

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        """Return the page."""
        return _file(ui / "index.html")

    @app.get("/samples.json", include_in_schema=False)
    async def sample_list() -> Response:
        """Return the list of sample pictures and questions."""
        return _file(samples / "samples.json")


def _file(path: Path) -> Response:
    if not path.is_file():
        raise NoSuchRouteError(f"this installation has no {path.name}")
    return FileResponse(path, headers=HEADERS)
