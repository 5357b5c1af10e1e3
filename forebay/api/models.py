"""``GET /v1/models``: the served model under each of its names."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from forebay.admission.profile import ModelProfile
from forebay.api.dependencies import ServicesOf
from forebay.core.errors import ModelNotFoundError

router = APIRouter(prefix="/v1/models", tags=["models"])

_CREATED_S = 1_700_000_000
"""The list's form wants a time; that of a checkpoint is not known."""


@router.get("")
async def list_models(services: ServicesOf) -> dict[str, Any]:
    """List the names that a request may give; the served name comes first."""
    profile = services.profile
    names = (profile.name, *(alias for alias in profile.aliases if alias != profile.name))
    return {"object": "list", "data": [_model(profile, name) for name in names]}


@router.get("/{name:path}")
async def one_model(name: str, services: ServicesOf) -> dict[str, Any]:
    """Describe one of them."""
    if not services.profile.knows(name):
        raise ModelNotFoundError(f"the model {name!r} is not served here", param="model")
    return _model(services.profile, name)


def _model(profile: ModelProfile, name: str) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": _CREATED_S,
        "owned_by": "forebay",
        "root": profile.name,
        "max_model_len": profile.context_tokens,
    }
