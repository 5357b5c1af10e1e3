"""The question that shows that an engine answers: a real picture, one token."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping

from PIL import Image

from forebay.core.request import (
    ImagePart,
    InferenceRequest,
    Message,
    Role,
    SamplingParams,
    TextPart,
)

_SIDE = 112


def warm_up_request() -> tuple[InferenceRequest, Mapping[str, bytes]]:
    """Return the request, and its picture's bytes by their SHA-256."""
    content = io.BytesIO()
    Image.linear_gradient("L").resize((_SIDE, _SIDE)).convert("RGB").save(content, "JPEG")
    sha256 = hashlib.sha256(content.getvalue()).hexdigest()
    parts = (ImagePart(sha256, _SIDE, _SIDE), TextPart("?"))
    request = InferenceRequest(
        "warm-up", (Message(Role.USER, parts),), SamplingParams(max_tokens=1)
    )
    return request, {sha256: content.getvalue()}
