"""Which scope a path needs. What is named nowhere needs one: no new route is open by mistake."""

from __future__ import annotations

from typing import Final

from forebay.access.caller import Scope

METRICS: Final = "/metrics"
_OPEN: Final = frozenset(
    {
        "/", "/console", "/samples.json", "/favicon.ico", "/robots.txt", "/docs", "/openapi.json",
        "/healthz", "/health", "/health/generate", "/ready", METRICS,
    }
)  # fmt: skip
_OPEN_FOLDERS: Final = ("/ui/", "/samples/")
_SCOPES: Final = (("/v1/admin", Scope.ADMIN), ("/v1/tasks", Scope.TASKS))


def scope_of(path: str, method: str) -> Scope | None:
    """Return the scope that a request needs, None where anyone may come.

    To submit a task is to infer, by whatever path.
    """
    if path in _OPEN or path.startswith(_OPEN_FOLDERS):
        return None
    for prefix, scope in _SCOPES:
        if path == prefix and scope is Scope.TASKS and method == "POST":
            return Scope.INFER
        if path == prefix or path.startswith(prefix + "/"):
            return scope
    return Scope.INFER
