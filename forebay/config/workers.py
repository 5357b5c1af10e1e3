"""The settings of workers: how many, how large, and when one is taken for hung."""

from __future__ import annotations

from pydantic import Field

from forebay.config.group import SettingsGroup


class WorkerSettings(SettingsGroup):
    """Worker processes, their engines, and how long they are waited for."""

    workers: int = Field(1, ge=1, le=64, description="Worker processes on this machine.")
    engine_threads: int = Field(0, ge=0, description="CPU threads of an engine; 0: chosen.")
    max_running: int = Field(16, ge=1, description="Sequences that an engine runs at once.")
    token_budget: int = Field(
        0, ge=0, description="Tokens that an engine takes in a step; 0: chosen for its device."
    )
    memory_share: float = Field(
        0.9, gt=0, le=1, description="Share of the device's free memory that an engine may take."
    )
    context_tokens: int = Field(
        4096, ge=64, description="Tokens, prompt and answer, that one request must be able to have."
    )
    stall_s: float = Field(
        10.0,
        ge=1,
        le=600,
        description="How long a worker's engine may stand still with work, or a worker be silent, "
        "before its process is replaced. A layer run is a movement.",
    )
    health_timeout_s: float = Field(
        15.0, gt=0, le=600, description="How long the model may take to answer a health check."
    )
    drain_s: float = Field(20.0, ge=0, description="How long a stop waits for running tasks.")
