"""Which trace a request belongs to: W3C Trace Context, as far as it is passed on and written down.

Source: https://www.w3.org/TR/trace-context/
"""

from __future__ import annotations

import re
import secrets
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Final

_FORM: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_MEMBER: Final = re.compile(
    r"[a-z0-9][a-z0-9_*/@-]{0,255}=[ -+\--<>-~]{0,255}[!-+\--<>-~]"  # no comma, no other "="
)
_MOST_MEMBERS: Final = 32
_MOST_STATE: Final = 512
_LONG_MEMBER: Final = 128
_NO_TRACE: Final = "0" * 32
_NO_SPAN: Final = "0" * 16
_SAMPLED: Final = 0x01


@dataclass(frozen=True, slots=True)
class Trace:
    """A trace and our step in it. ``flags``: two hexadecimal digits; the caller's word on sampling.

    ``state``: what others have noted of it, in the form of ``tracestate``; it goes on as it came.
    ``str`` gives the form of ``traceparent``, for whoever comes next.
    """

    trace_id: str
    span_id: str
    flags: str = "00"
    state: str = ""

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}"

    @property
    def sampled(self) -> bool:
        """Whether who began the trace wants it kept."""
        return bool(int(self.flags, 16) & _SAMPLED)

    def child(self) -> Trace:
        """Return a new step of the same trace."""
        return replace(self, span_id=secrets.token_hex(8))


def new_trace(*, sampled: bool = False) -> Trace:
    """Return the first step of a trace of our own; ``sampled``: it is to be kept."""
    return Trace(secrets.token_hex(16), secrets.token_hex(8), f"{_SAMPLED * sampled:02x}")


def read_trace(traceparent: str, tracestate: str = "") -> Trace | None:
    """Read the headers; None where ``traceparent`` is none: the other one means nothing then.

    A later version is read as far as this one goes. ``tracestate``: all such headers, joined by
    commas; one that is none costs the trace nothing but its state.
    """
    found = _FORM.fullmatch(traceparent)
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more) or trace_id == _NO_TRACE:
        return None
    if span_id == _NO_SPAN:
        return None
    return Trace(trace_id, span_id, f"{int(flags, 16) & _SAMPLED:02x}", _read_state(tracestate))


def _read_state(tracestate: str) -> str:
    """Return what goes on of it: whole members, and with too much the long and the old ones not."""
    members = [one for part in tracestate.split(",") if (one := part.strip(" \t"))]
    if len(members) > _MOST_MEMBERS or not all(map(_MEMBER.fullmatch, members)):
        return ""
    if len(",".join(members)) > _MOST_STATE:
        members = [one for one in members if len(one) <= _LONG_MEMBER]
    while len(",".join(members)) > _MOST_STATE:
        members.pop()
    return ",".join(members)


current_trace: ContextVar[Trace | None] = ContextVar("trace", default=None)
"""The trace of the request under way in this task."""
