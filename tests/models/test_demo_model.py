"""The shipped folder is a Hugging Face checkpoint: ``transformers`` loads it and answers alike."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from forebay.core.events import Finished
from forebay.core.request import (
    ImagePart,
    InferenceRequest,
    Message,
    Role,
    SamplingParams,
    TaskId,
    TextPart,
)
from forebay.engine.engine import Engine
from forebay.engine.limits import EngineLimits
from tests.reference import Picture, Reference, contents

MODEL, SAMPLES = Path("forebay/demo_model"), Path("forebay/samples")
MOST = 20


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference(MODEL)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine.from_folder(MODEL, limits=EngineLimits(max_running=4), device="cpu")


@pytest.mark.parametrize("sample", json.loads((SAMPLES / "samples.json").read_text("utf-8"))[:10])
def test_transformers_answers_a_sample_as_we_do(
    reference: Reference, engine: Engine, sample: dict[str, str]
) -> None:
    content = (SAMPLES / sample["file"]).read_bytes()
    picture = Picture(ImagePart("a" * 64, 0, 0), content)
    part = ImagePart(sample["file"].ljust(64, "0"), *picture.image.size)
    message = Message(Role.USER, (part, TextPart(sample["question"])))
    ids = reference.generate((message,), {part.sha256: picture.image}, MOST)
    request = InferenceRequest("demo", (message,), SamplingParams(max_tokens=MOST))
    stored = contents([Picture(part, content)])
    engine.add(engine.prepare(TaskId("t"), request, stored))
    finished = None
    while engine.has_work:
        for event in engine.step().events:
            finished = event if isinstance(event, Finished) else finished
    assert finished is not None
    assert finished.text == reference.tokenizer.decode(ids, skip_special_tokens=True)
