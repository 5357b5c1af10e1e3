"""What administrators send, and how the door reads it."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from forebay.access.caller import Allowance, Scope
from forebay.access.keys import LONGEST_LABEL, read_allowance
from forebay.core.errors import InvalidRequestError
from forebay.core.request import DEFAULT_TENANT

YEAR_S = 366 * 86_400
OVERLAP_S = 86_400

Count = Annotated[int | None, Field(ge=1, le=10**12)]


class AllowanceForm(BaseModel):
    """What a key may have; see ``Allowance``."""

    model_config = ConfigDict(extra="forbid")

    rate_per_s: Annotated[float | None, Field(gt=0, le=1e6)] = None
    burst: Annotated[int, Field(ge=1, le=10**6)] = 10
    max_waiting: Count = None
    max_waiting_tokens: Count = None
    max_unfinished: Count = None
    tokens_per_minute: Count = None
    tokens_per_day: Count = None
    weight: Annotated[float, Field(ge=0.01, le=100)] = 1.0
    top_priority: Annotated[int, Field(ge=0, le=9)] = 0

    def to_allowance(self) -> Allowance:
        """Return it. Raises InvalidRequestError."""
        try:
            return read_allowance(self.model_dump())
        except ValueError as error:
            raise InvalidRequestError(str(error), param="allowance") from error


class NewKeyForm(BaseModel):
    """A key to be made."""

    model_config = ConfigDict(extra="forbid")

    label: Annotated[str, Field(min_length=1, max_length=LONGEST_LABEL)]
    scopes: Annotated[set[Scope], Field(min_length=1)] = {Scope.INFER, Scope.TASKS}
    tenant: str = DEFAULT_TENANT
    expires_in_s: Annotated[float | None, Field(gt=0, le=100 * YEAR_S)] = None
    allowance: AllowanceForm = AllowanceForm()


class RotationForm(BaseModel):
    """How a key is replaced."""

    model_config = ConfigDict(extra="forbid")

    overlap_s: Annotated[float, Field(ge=0, le=YEAR_S)] = OVERLAP_S


class ReplayForm(BaseModel):
    """Whose dead letters are sent back; empty: every tenant's."""

    model_config = ConfigDict(extra="forbid")

    tenant: Annotated[str, Field(max_length=200)] = ""
