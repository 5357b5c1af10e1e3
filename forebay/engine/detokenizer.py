"""From sampled tokens to the text that may be shown: whole characters, and no stop string."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence

TokenBytes = Callable[[int], bytes]
"""What a token adds to the text, as UTF-8; a token may be a part of a character."""


class Detokenizer:
    """Grows one answer's text token by token.

    Text is held back while its end may be half a character, or the beginning of a stop string.
    ``text`` is all that was shown; the deltas joined are equal to it. Bytes that are no character
    come out as U+FFFD, one for each piece that began like one, as ``tokenizers`` decodes them.
    """

    def __init__(self, token_bytes: TokenBytes, stop: Sequence[str] = ()) -> None:
        self._token_bytes = token_bytes
        self._stop = tuple(text for text in stop if text)
        self._longest_stop = max(map(len, self._stop), default=1)
        self._characters = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""  # whole characters that may begin a stop string
        self._shown: list[str] = []
        self.stopped = False

    @property
    def text(self) -> str:
        """All that was shown."""
        return "".join(self._shown)

    def push(self, token_id: int, *, may_stop: bool = True) -> str:
        """Take a token; return the text that it lets out. Sets ``stopped`` at a stop string.

        ``may_stop``: where False, a stop string that ends with this token is text. One that only
        begins with it is still looked for.
        """
        new = self._characters.decode(self._token_bytes(token_id))
        return self._until_stop(new, may_stop=may_stop, last=False)

    def finish(self) -> str:
        """Return what was held back; the answer is over."""
        if self.stopped:
            return ""
        new = self._characters.decode(b"", final=True)
        return self._until_stop(new, may_stop=True, last=True)

    def _until_stop(self, new: str, *, may_stop: bool, last: bool) -> str:
        text, known = self._held + new, len(self._held)
        if may_stop:
            # what was held back has none but those that were let through
            found = (text.find(stop, max(0, known + 1 - len(stop))) for stop in self._stop)
            cuts = [at for at in found if at >= 0]
            if cuts:
                self.stopped = True
                return self._show(text[: min(cuts)], kept="")
        keep = 0 if last else self._possible_stop(text)
        return self._show(text[: len(text) - keep], kept=text[len(text) - keep :])

    def _show(self, text: str, *, kept: str) -> str:
        self._held = kept
        if text:
            self._shown.append(text)
        return text

    def _possible_stop(self, text: str) -> int:
        """Length of the longest end of ``text`` that begins a stop string."""
        for length in range(min(self._longest_stop - 1, len(text)), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stop):
                return length
        return 0
