"""A completion's prompt is what its client wrote, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tokenizers import Tokenizer, processors

from forebay.core.errors import InvalidRequestError
from forebay.core.request import InferenceRequest, Message, Role, SamplingParams, TaskId, TextPart
from forebay.engine.engine import Engine
from forebay.engine.limits import EngineLimits
from forebay.engine.upstream.wire import request_body
from tests.checkpoints import TINY, write_checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose tokenizer puts a beginning before every text, as the family's do."""
    folder = write_checkpoint(tmp_path_factory.mktemp("model"), replace(TINY, stop_tokens=()))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    first = tokenizer.encode("^").tokens[0]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A", special_tokens=[(first, tokenizer.token_to_id(first))]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def engine(folder: Path) -> Engine:
    return Engine.from_folder(folder, limits=EngineLimits(max_running=2), device="cpu")


def raw(text: str) -> InferenceRequest:
    turn = Message(Role.USER, (TextPart(text),))
    return InferenceRequest("m", (turn,), SamplingParams(max_tokens=4), raw=True)


def control(folder: Path) -> str:
    added = Tokenizer.from_file(str(folder / "tokenizer.json")).get_added_tokens_decoder().values()
    return next(one.content for one in added if one.special and "image" not in one.content)


def test_the_whole_prompt_is_tokenised_as_the_checkpoint_does_it(
    engine: Engine, folder: Path
) -> None:
    text = f"多少钱? {control(folder)} 12"
    prepared = engine.prepare(TaskId("t"), raw(text), {})
    own = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert prepared.token_ids == own.encode(text).ids
    assert own.token_to_id(control(folder)) in prepared.token_ids, "a control token is one here"
    assert prepared.token_ids[0] == own.encode("^", add_special_tokens=False).ids[0]
    assert not prepared.spans


def test_a_chat_keeps_its_template(engine: Engine) -> None:
    asked = raw("12")
    chat = engine.prepare(TaskId("t"), replace(asked, raw=False), {})
    assert len(chat.token_ids) > len(engine.prepare(TaskId("t"), asked, {}).token_ids)


@pytest.mark.parametrize("text", ["look: <|image|>", "<|image|>"])
def test_a_place_for_a_picture_is_refused(engine: Engine, text: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        engine.prepare(TaskId("t"), raw(text), {})
    assert refused.value.param == "prompt"


def test_a_server_elsewhere_puts_its_template_so_it_is_not_asked() -> None:
    with pytest.raises(InvalidRequestError, match="conversations only") as refused:
        request_body("m", raw("x"), {})
    assert refused.value.param == "prompt"


def test_the_queue_carries_it() -> None:
    asked = raw("x")
    assert InferenceRequest.from_dict(asked.to_dict()) == asked
    chat = replace(asked, raw=False)
    assert "raw" not in chat.to_dict(), "older workers read what is in the queue"
    assert InferenceRequest.from_dict(chat.to_dict()) == chat
