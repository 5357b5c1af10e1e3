"""From sampled tokens to the text that may be shown: whole characters, and no stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_UNFINISHED = "\ufffd"
_HELD_TOKENS = 16
"""A character has at most four bytes: a longer row of broken ones is the model's own noise."""

Decode = Callable[[Sequence[int]], str]


class Detokenizer:
    """Grows one answer's text token by token.

    Text is held back while its end may be half a character, or the beginning of a stop string.
    ``text`` is all that was shown; the deltas joined are equal to it.
    """

    def __init__(self, decode: Decode, stop: Sequence[str] = ()) -> None:
        self._decode = decode
        self._stop = tuple(text for text in stop if text)
        self._ids: list[int] = []
        self._context = 0  # where the window of tokens begins that is decoded again
        self._read = 0  # tokens whose text is out of the decoder
        self._held = ""  # whole characters that may begin a stop string
        self._shown: list[str] = []
        self.stopped = False

    @property
    def text(self) -> str:
        """All that was shown."""
        return "".join(self._shown)

    def push(self, token_id: int) -> str:
        """Take a token; return the text that it lets out. Sets ``stopped`` at a stop string."""
        self._ids.append(token_id)
        return self._show(self._whole_characters(last=False), last=False)

    def finish(self) -> str:
        """Return what was held back; the answer is over."""
        if self.stopped:
            return ""
        return self._show(self._whole_characters(last=True), last=True)

    def _whole_characters(self, *, last: bool) -> str:
        # Decoding from a little before the new tokens keeps the spaces that some tokenizers strip
        # from the first word.
        before = self._decode(self._ids[self._context : self._read])
        after = self._decode(self._ids[self._context :])
        held = len(self._ids) - self._read
        if after.endswith(_UNFINISHED) and not last and held < _HELD_TOKENS:
            return ""
        self._context, self._read = self._read, len(self._ids)
        return after[len(before) :]

    def _show(self, new: str, *, last: bool) -> str:
        text = self._held + new
        cuts = [at for at in (text.find(stop) for stop in self._stop) if at >= 0]
        if cuts:
            self.stopped = True
            shown, self._held = text[: min(cuts)], ""
        else:
            keep = 0 if last else self._possible_stop(text)
            shown, self._held = text[: len(text) - keep], text[len(text) - keep :]
        if shown:
            self._shown.append(shown)
        return shown

    def _possible_stop(self, text: str) -> int:
        """Length of the longest end of ``text`` that begins a stop string."""
        longest = max((len(stop) for stop in self._stop), default=1) - 1
        for length in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stop):
                return length
        return 0
