"""What the peers' servers share: a checkpoint in transformers, and chat requests put to it."""

from __future__ import annotations

import base64
import io
import os
from typing import Any

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor


class Generator:
    """One model and its processor, answering batches of conversations greedily."""

    def __init__(self) -> None:
        checkpoint = os.environ["CHECKPOINT"]
        torch.set_num_threads(int(os.environ["THREADS"]))
        processors: Any = AutoProcessor
        models: Any = AutoModelForImageTextToText
        self.processor = processors.from_pretrained(checkpoint)
        self.model = models.from_pretrained(checkpoint, dtype=torch.float32).eval()

    @torch.inference_mode()
    def answers(self, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Answer chat completion requests in one batch; all run as long as the longest."""
        inputs = self.processor.apply_chat_template(
            [_conversation(request) for request in requests],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": len(requests) > 1},
        )
        prompt = inputs["input_ids"].shape[1]
        out = self.model.generate(
            **inputs,
            do_sample=False,
            max_new_tokens=max(request["max_tokens"] for request in requests),
            min_new_tokens=max(request.get("min_tokens", 0) for request in requests),
        )
        return [self._answer(tokens[prompt:]) for tokens in out]

    def _answer(self, tokens: torch.Tensor) -> dict[str, Any]:
        text = self.processor.tokenizer.decode(tokens, skip_special_tokens=True)
        message = {"role": "assistant", "content": text}
        return {
            "object": "chat.completion",
            "choices": [{"index": 0, "finish_reason": "length", "message": message}],
            "usage": {"completion_tokens": len(tokens)},
        }


def _conversation(request: dict[str, Any]) -> list[dict[str, Any]]:
    turns = []
    for message in request["messages"]:
        parts = [_part(part) for part in message["content"]]
        turns.append({"role": message["role"], "content": parts})
    return turns


def _part(part: dict[str, Any]) -> dict[str, Any]:
    if part["type"] != "image_url":
        return part
    content = base64.b64decode(part["image_url"]["url"].split(",", 1)[1])
    return {"type": "image", "image": Image.open(io.BytesIO(content)).convert("RGB")}
