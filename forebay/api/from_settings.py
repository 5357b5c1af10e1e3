"""What of the door follows from the settings alone."""

from __future__ import annotations

from dataclasses import replace

from forebay.admission.fetch import FetchBounds, PictureFetcher
from forebay.admission.held import HeldBytes
from forebay.admission.policy import Limits
from forebay.admission.profile import ModelProfile
from forebay.api.services import DoorSettings
from forebay.config import Settings
from forebay.core.image_grid import GridRules
from forebay.outbound.client import Bounds, SafeClient
from forebay.outbound.reach import Reach

_REDIRECTS = 3
"""Of a picture's URL; each is judged as the first."""


def model_profile(settings: Settings) -> ModelProfile:
    """Return the model as its folder tells; before an upstream without one, Glm4v's own rules.

    Raises:
        ProfileError: the folder cannot be read.
    """
    name, aliases = settings.served_name, settings.model_aliases
    if settings.profile_folder is None:
        context = settings.upstream_context_tokens
        return ModelProfile(name, aliases, GridRules(), context, calls=True)
    profile = ModelProfile.from_folder(settings.profile_folder, name, aliases)
    # what a server elsewhere can be offered it says itself
    return replace(profile, calls=True) if settings.upstream_url is not None else profile


def picture_fetcher(settings: Settings, held: HeldBytes) -> PictureFetcher:
    """Return what fetches pictures by URL; ``held`` counts them."""
    reach = Reach.from_words(settings.fetch_allow, settings.fetch_ports, settings.fetch_only)
    bounds = Bounds(
        total_s=settings.fetch_timeout_s,
        body_bytes=settings.fetch_max_bytes,
        redirects=_REDIRECTS,
        connections=settings.fetch_concurrency,
    )
    return PictureFetcher(
        SafeClient(reach, bounds),
        held,
        FetchBounds(
            most_bytes=settings.fetch_max_bytes,
            places=settings.fetch_concurrency,
            wait_s=settings.fetch_timeout_s,
            cache_bytes=settings.fetch_cache_bytes,
            fresh_s=settings.fetch_cache_s,
        ),
    )


def door_settings(settings: Settings) -> DoorSettings:
    """Return the door's share of the settings."""
    return DoorSettings(
        max_body_bytes=settings.max_body_bytes,
        max_file_bytes=settings.max_file_bytes,
        body_timeout_s=settings.body_timeout_s,
        image_side=settings.image_side,
        max_tokens_default=settings.max_tokens_default,
        max_tokens_limit=settings.max_tokens_limit,
        max_choices=settings.max_choices,
        answer_timeout_s=settings.answer_timeout_s,
        reuse_answers=settings.answer_cache_s > 0,
        share_answers=settings.answer_cache_shared,
        stall_s=settings.stall_s,
        health_timeout_s=settings.health_timeout_s,
        log_level=settings.log_level,
        cors_origins=settings.cors_origins,
        cors_credentials=settings.cors_credentials,
        send_timeout_s=settings.send_timeout_s,
        front_pages={getattr(settings, name): at for name, at in settings.page_ports().items()},
    )


def door_limits(settings: Settings, profile: ModelProfile) -> Limits:
    """Return what the door lets in."""
    return Limits(
        context_tokens=profile.context_tokens,
        max_waiting=settings.max_waiting,
        max_waiting_tokens=settings.max_waiting_tokens,
        max_images=settings.max_images,
        max_image_pixels=settings.max_image_pixels,
    )
