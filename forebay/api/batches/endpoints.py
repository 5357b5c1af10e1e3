"""Which requests a batch may hold."""

from __future__ import annotations

from typing import Final

from forebay.api.calls import ReadCall, chat_call, completion_call, response_call

ENDPOINTS: Final[dict[str, ReadCall]] = {
    "/v1/chat/completions": chat_call,
    "/v1/completions": completion_call,
    "/v1/responses": response_call,
}
