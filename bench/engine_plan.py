"""What a run of the engine's bench is to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.checkpoints import checkpoint_folder
from bench.plan import Plan


@dataclass(frozen=True, slots=True)
class EngineSizes:
    """How much is asked. ``rounds`` are interleaved: every server once, then again."""

    rounds: int = 3
    one_by_one: int = 6
    eight: int = 16
    burst: int = 50
    warm_up: int = 8
    repeats: int = 8
    waiting: int = 1000
    answers_meanwhile: int = 500
    step_requests: int = 50
    decode_steps: int = 40
    kv_tokens: int = 256


QUICK = EngineSizes(
    rounds=1,
    one_by_one=1,
    eight=2,
    burst=4,
    warm_up=1,
    repeats=1,
    waiting=30,
    answers_meanwhile=2,
    step_requests=3,
    decode_steps=3,
    kv_tokens=8,
)
"""A smoke run: every path once, figures that mean nothing, on the tiny checkpoint throughout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnginePlan(Plan):
    """One run of the engine's bench.

    Attributes:
        peers: who is compared, by name.
        sizes: how much is asked.
        round_limit_s: no further round of a comparison begins when it would end after this.
    """

    peers: tuple[str, ...]
    sizes: EngineSizes
    round_limit_s: float

    def checkpoint(self, name: str) -> Path:
        """Return the folder of the checkpoint ``tiny`` or ``small``."""
        return checkpoint_folder(self.home, "tiny" if self.sizes is QUICK else name)
