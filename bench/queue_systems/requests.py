"""Requests as the door makes them: a question about one picture, which is only named."""

from __future__ import annotations

import hashlib
import uuid
from typing import Final

from forebay.core.request import (
    Cost,
    ImagePart,
    InferenceRequest,
    Message,
    Role,
    SamplingParams,
    TaskId,
    Tenant,
    TextPart,
)
from forebay.queue.ports import NewTask

TENANTS: Final = 100
QUESTIONS: Final = (
    "What is the total on this receipt, and which items were bought? Answer with a list.",
    "Describe this picture in two sentences for somebody who cannot see it.",
    "Is the product in the picture damaged? Say where, and how badly, on a scale from 1 to 5.",
    "图中的商品是什么牌子?请给出价格和规格。",
    "Which licence plate can be read here? Answer with its characters only.",
)


def picture_task(number: int) -> NewTask:
    """Return a task of one of 100 tenants; no two are about the same picture."""
    sha256 = hashlib.sha256(str(number).encode()).hexdigest()
    question = f"{QUESTIONS[number % len(QUESTIONS)]} ({number})"
    parts = (ImagePart(sha256, 1024, 768), TextPart(question))
    request = InferenceRequest(
        "glm-4v-9b", (Message(Role.USER, parts),), SamplingParams(max_tokens=512, temperature=0.7)
    )
    cost = Cost(visual_tokens=1036, text_tokens=30, output_tokens=512)
    tenant = Tenant(f"tenant-{number % TENANTS:03}")
    return NewTask(TaskId(uuid.uuid4().hex), request, cost, tenant)
