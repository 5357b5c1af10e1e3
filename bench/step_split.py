"""Where the engine's steps spend their time. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from forebay.core.events import StepStats


def split(steps: Sequence[StepStats]) -> dict[str, float]:
    """Return the seconds of schedule, vision, prefill, decode, sample and the rest.

    In a step that prefills and decodes, each decode token is charged at the mean rate of the steps
    that only decode, and prefill has what is left.
    """
    rate = _seconds_a_decode_token(steps)
    parts = dict.fromkeys(("schedule", "vision", "prefill", "decode", "sample"), 0.0)
    for one in steps:
        decoding = one.decoder_s
        if one.prefill_tokens:
            decoding = min(one.decoder_s, rate * one.decode_tokens)
        parts["schedule"] += one.schedule_s
        parts["vision"] += one.vision_s
        parts["prefill"] += one.decoder_s - decoding
        parts["decode"] += decoding
        parts["sample"] += one.sample_s
    parts["other"] = sum(one.step_s for one in steps) - sum(parts.values())
    return parts


def _seconds_a_decode_token(steps: Sequence[StepStats]) -> float:
    alone = [one for one in steps if one.decode_tokens and not one.prefill_tokens]
    tokens = sum(one.decode_tokens for one in alone)
    return sum(one.decoder_s for one in alone) / tokens if tokens else 0.0
