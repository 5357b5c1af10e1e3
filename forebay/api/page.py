"""The page and the sample pictures: static files of the package, under a strict policy."""

from __future__ import annotations

import gzip
from os import PathLike, stat_result
from pathlib import Path

from fastapi import FastAPI
from starlette.datastructures import Headers
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


_WORDS = frozenset({".js", ".mjs", ".css", ".svg", ".json", ".html"})
"""Endings of what becomes a third of its size; pictures are small as they are."""


class _Files(StaticFiles):
    """A folder of the package; what is text is sent compressed to whoever takes it so."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory=directory, check_dir=False)
        self._packed: dict[str, tuple[float, bytes]] = {}

    async def get_response(self, path: str, scope: Scope) -> Response:
        answer = await super().get_response(path, scope)
        answer.headers.update(HEADERS)
        return answer

    def file_response(
        self,
        full_path: str | PathLike[str],
        stat_result: stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        answer = super().file_response(full_path, stat_result, scope, status_code)
        answer.headers["Vary"] = "Accept-Encoding"
        gzipped = "gzip" in Headers(scope=scope).get("Accept-Encoding", "")
        if (
            not gzipped
            or not isinstance(answer, FileResponse)
            or Path(full_path).suffix not in _WORDS
        ):
            return answer
        told = {name: answer.headers[name] for name in ("last-modified", "vary", "content-type")}
        told |= {"Content-Encoding": "gzip", "ETag": f"W/{answer.headers['etag']}"}
        return Response(self._compressed(Path(full_path), stat_result.st_mtime), headers=told)

    def _compressed(self, file: Path, changed_s: float) -> bytes:
        """Return a file's bytes, compressed once for as long as it does not change."""
        kept = self._packed.get(str(file))
        if kept is None or kept[0] != changed_s:
            kept = (changed_s, gzip.compress(file.read_bytes()))
            self._packed[str(file)] = kept
        return kept[1]


def install_page(app: FastAPI, package: Path = PACKAGE) -> None:
    """Serve ``/``, ``/console``, ``/ui/*``, ``/samples/*`` and ``/samples.json``."""
    ui, samples = package / "ui", package / "samples"
    app.mount("/ui", _Files(ui))
    app.mount("/samples", _Files(samples))

    @app.head("/", include_in_schema=False)
    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        """Return the page."""
        return _file(ui / "index.html")

    @app.get("/console", include_in_schema=False)
    async def console() -> Response:
        """Return the console. It shows nothing without an administrator's key."""
        return _file(ui / "console.html")

    @app.get("/samples.json", include_in_schema=False)
    async def sample_list() -> Response:
        """Return the list of sample pictures and questions."""
        return _file(samples / "samples.json")


def _file(path: Path) -> Response:
    if not path.is_file():
        raise NoSuchRouteError(f"this installation has no {path.name}")
    return FileResponse(path, headers=HEADERS)
