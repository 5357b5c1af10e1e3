from __future__ import annotations

import pytest

from bench.step_split import split
from forebay.core.events import StepStats


def test_a_step_that_prefills_and_decodes_is_charged_to_both() -> None:
    alone = StepStats(decode_tokens=2, decoder_s=0.2, step_s=0.25, sample_s=0.05)
    mixed = StepStats(decode_tokens=3, prefill_tokens=90, decoder_s=1.0, vision_s=0.5, step_s=1.6)
    parts = split([alone, mixed])
    assert parts["decode"] == pytest.approx(0.2 + 0.3)
    assert parts["prefill"] == pytest.approx(0.7)
    assert parts["vision"] == pytest.approx(0.5)
    assert parts["other"] == pytest.approx(0.1)
    assert sum(parts.values()) == pytest.approx(1.85)


def test_steps_that_only_prefill_charge_nothing_to_decode() -> None:
    parts = split([StepStats(prefill_tokens=350, decoder_s=1.0, step_s=1.0)])
    assert (parts["prefill"], parts["decode"]) == (1.0, 0.0)
