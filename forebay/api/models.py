"""``GET /v1/models``: the served model under each of its names."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from forebay.api.dependencies import ServicesOf
from forebay.api.services import Services
from forebay.core.errors import ModelNotFoundError
from forebay.core.image_grid import visual_tokens

router = APIRouter(prefix="/v1/models", tags=["models"])

_CREATED_S = 1_700_000_000
"""The list's form wants a time; that of a checkpoint is not known."""

_SIDES = (512, 1024, 2048)
"""Of square pictures, in pixels: the sizes by which people compare models."""


@router.get("")
async def list_models(services: ServicesOf) -> dict[str, Any]:
    """List the names that a request may give; the served name comes first."""
    profile = services.profile
    names = (profile.name, *(alias for alias in profile.aliases if alias != profile.name))
    return {"object": "list", "data": [_model(services, name) for name in names]}


@router.get("/{name:path}")
async def one_model(name: str, services: ServicesOf) -> dict[str, Any]:
    """Describe one of them."""
    if not services.profile.knows(name):
        raise ModelNotFoundError(f"the model {name!r} is not served here", param="model")
    return _model(services, name)


def _model(services: Services, name: str) -> dict[str, Any]:
    profile = services.profile
    return {
        "id": name,
        "object": "model",
        "created": _CREATED_S,
        "owned_by": "forebay",
        "root": profile.name,
        "max_model_len": profile.context_tokens,
        "vision": _vision(services),
        "visual_tokens": {f"{side}x{side}": _visual_tokens(services, side) for side in _SIDES},
    }


def _vision(services: Services) -> dict[str, Any]:
    """Return what a client needs to price a picture, or shrink it, before it sends it.

    ``image_side``: longest side, in pixels, with which a picture is stored. ``grid``: the numbers
    of the model's ``preprocessor_config.json``. ``fetches_urls``: whether one may be a URL.
    """
    rules = services.profile.rules
    return {
        "image_side": services.settings.image_side,
        "max_images": services.limits.max_images,
        "max_image_pixels": services.limits.max_image_pixels,
        "fetches_urls": services.fetcher is not None,
        "grid": {
            "patch_size": rules.patch_size,
            "merge_size": rules.merge_size,
            "temporal_patch_size": rules.temporal_patch_size,
            "min_pixels": rules.min_pixels,
            "max_pixels": rules.max_pixels,
        },
    }


def _visual_tokens(services: Services, side: int) -> int:
    """Return what a square picture takes of the model, as it is stored here."""
    stored = min(side, services.settings.image_side)
    return visual_tokens(stored, stored, services.profile.rules)
