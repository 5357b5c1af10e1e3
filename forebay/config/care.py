"""The settings of care: when a worker's process is replaced by a fresh one though nothing is wrong.

What is unset is no reason.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from forebay.config.group import SettingsGroup
from forebay.core.daily_window import DailyWindow, zone_named


class CareSettings(SettingsGroup):
    """When workers are recycled, and how."""

    recycle_window: str = Field(
        "",
        description="Time of each day, such as `03:00-05:00`, in which every worker is replaced by "
        "a fresh one; empty: none.",
    )
    recycle_time_zone: str = Field(
        "UTC", description="Time zone of that window, such as `Asia/Shanghai`."
    )
    recycle_max_waiting: int = Field(
        0,
        ge=0,
        description="Tasks that may wait meanwhile; with more the worker's turn waits, if need be "
        "for the next day's window.",
    )
    recycle_memory_bytes: int | None = Field(
        None, ge=2**20, description="Resident memory past which a worker is replaced."
    )
    recycle_memory_growth: float | None = Field(
        None,
        gt=0,
        description="Share by which it may grow over its level at the age of `recycle_settle_s`; "
        "0.5: by half.",
    )
    recycle_gpu_memory_bytes: int | None = Field(
        None, ge=2**20, description="The same of the GPU's memory that its engine has reserved."
    )
    recycle_gpu_memory_growth: float | None = Field(
        None, gt=0, description="Share by which that may grow over its level at that age."
    )
    recycle_age_s: float | None = Field(
        None, gt=0, description="Age at which a worker is replaced."
    )
    recycle_tasks: int | None = Field(
        None, ge=1, description="Tasks that a worker ends before it is replaced."
    )
    recycle_settle_s: float = Field(
        600.0, ge=1, description="Age before which no worker is replaced for any of these reasons."
    )
    recycle_drain_s: float = Field(
        300.0,
        ge=0,
        description="How long such a worker may go on with what it has begun, before it gives it "
        "back to the queue.",
    )
    recycle_overlap: Literal["auto", "always", "never"] = Field(
        "auto",
        description="Whether the new worker is warm before the old one drains: `auto`: where it is "
        "the only one and the memory suffices for two.",
    )

    @model_validator(mode="after")
    def _care(self) -> Self:
        zone_named(self.recycle_time_zone)
        self.quiet_window()
        if self.recycle_age_s is not None and self.recycle_age_s < self.recycle_settle_s:
            raise ValueError("recycle_age_s must be at least recycle_settle_s")
        return self

    def quiet_window(self) -> DailyWindow | None:
        """Return when workers are recycled by schedule; None: never. Raises ValueError."""
        if not self.recycle_window:
            return None
        try:
            return DailyWindow.parse(self.recycle_window, self.recycle_time_zone)
        except ValueError as error:
            raise ValueError(f"recycle_window: {error}") from error
