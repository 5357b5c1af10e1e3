"""The settings of canaries: what they run, and what ends a trial by itself."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from forebay.config.group import SettingsGroup
from forebay.ops.canary.judgement import Terms
from forebay.queue.groups import Group


class CanarySettings(SettingsGroup):
    """A second group of workers, and when its share is taken back."""

    worker_group: Literal["stable", "canary"] = Field(
        "stable", description="Group of the workers: `stable`, or `canary`, which get a share."
    )
    canary_model: str = Field(
        "",
        description="Checkpoint folder, or `demo`, of one canary worker beside the stable ones; "
        "empty: none.",
    )
    canary_quantization: Literal["auto", "none", "int8", "fp8"] = Field(
        "auto", description="How the canary keeps its model's matrices."
    )
    canary_rollback: bool = Field(
        True, description="Whether a canary that does worse loses its share by itself."
    )
    canary_window_s: float = Field(
        300.0, ge=30, le=3600, description="How far back the two groups are compared."
    )
    canary_least: int = Field(
        20, ge=5, le=100_000, description="Fewer tasks of a canary than this are not judged."
    )
    canary_failed: float = Field(
        0.05,
        gt=0,
        lt=1,
        description="By how much a canary's share of failed, or of empty, answers may exceed the "
        "stable workers'.",
    )
    canary_slower: float = Field(
        1.5,
        ge=1,
        description="How many times the stable workers' 95th percentile of the time to the first "
        "token, or of the whole answer, a canary's may be.",
    )
    canary_restarts: int = Field(
        2, ge=1, description="Starts of a canary worker within that time that are borne."
    )

    @property
    def group(self) -> Group:
        """The group of this process's workers."""
        return Group(self.worker_group)

    def canary_terms(self) -> Terms:
        """Return what ends a trial."""
        return Terms(
            window_s=self.canary_window_s,
            least=self.canary_least,
            failed=self.canary_failed,
            slower=self.canary_slower,
            restarts=self.canary_restarts,
        )
