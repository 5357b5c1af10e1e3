"""Which requests may have one answer between them, and how a response says that it was so."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Final

from starlette.datastructures import Headers

from forebay import __version__
from forebay.api.services import DoorSettings
from forebay.core.request import InferenceRequest, Tenant
from forebay.queue.ports import Enqueued, Reuse, SameAnswer

CACHE_HEADER: Final = "X-Forebay-Cache"
_SAID: Final = {None: "miss", Reuse.CACHED: "hit", Reuse.JOINED: "joined"}


@dataclass(frozen=True, slots=True)
class CacheWishes:
    """``read``: another request's answer will do. ``keep``: this one's may serve others."""

    read: bool = True
    keep: bool = True


def cache_wishes(headers: Headers) -> CacheWishes:
    """Read ``Cache-Control``: ``no-cache`` asks for a run of its own, ``no-store`` for no trace.

    ``max-age=0`` is what browsers send for the former. Other directives are for caches of HTTP.
    """
    given = ",".join(headers.getlist("cache-control")).lower().split(",")
    asked = {directive.strip().replace(" ", "") for directive in given}
    store = "no-store" not in asked
    return CacheWishes(read=store and not asked & {"no-cache", "max-age=0"}, keep=store)


def same_answer(
    request: InferenceRequest, tenant: Tenant, wishes: CacheWishes, settings: DoorSettings
) -> SameAnswer | None:
    """Return what equal requests have in common; None where answers are chance, or not shared.

    Everything that the model is given is in the digest: its name, every message in its order with
    the SHA-256 of the pictures' normalised bytes, and all sampling parameters but the seed, which
    decides nothing here; also this release, and the tenant unless tenants share answers.
    """
    if not settings.reuse_answers or request.sampling.temperature != 0 or not wishes.keep:
        return None
    owner = None if settings.share_answers else tenant
    greedy = replace(request.sampling, seed=None)
    canonical = json.dumps(
        [__version__, owner, replace(request, sampling=greedy).to_dict()],
        ensure_ascii=False,
        sort_keys=True,
        separators=(",", ":"),
    )
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    return SameAnswer(digest, read=wishes.read, keep=wishes.keep)


def cache_header(enqueued: Enqueued) -> dict[str, str]:
    """Return the header that says whose answer it is."""
    return {CACHE_HEADER: _SAID[enqueued.reuse]}
