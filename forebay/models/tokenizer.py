"""Text to token ids and back, and a guard against control tokens in clients' text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from forebay.models.errors import CorruptFileError
from forebay.models.files import require_file

# Private-use characters that mark a control token which a client wrote, between rendering the chat
# template and tokenising. Those that a client sends are dropped.
_OPEN, _CLOSE = "\ue0f0", "\ue0f1"


@dataclass(frozen=True, slots=True)
class TextTokenizer:
    """The checkpoint's tokenizer. Safe to use from several threads."""

    tokenizer: Tokenizer
    control: re.Pattern[str]

    @classmethod
    def from_folder(cls, folder: Path) -> TextTokenizer:
        """Read ``tokenizer.json`` of a checkpoint folder.

        Raises:
            MissingFileError, CorruptFileError: naming the file.
        """
        path = require_file(folder, "tokenizer.json")
        try:
            tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8"))
        except Exception as error:  # the library raises no narrower class
            raise CorruptFileError(path, f"not a tokenizer ({error}); download it again") from error
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return cls(tokenizer, _control_pattern(tokenizer))

    def token_id(self, token: str) -> int | None:
        """Return the id of a token, None where the vocabulary has no such token."""
        found: int | None = self.tokenizer.token_to_id(token)
        return found

    def guard(self, text: str) -> str:
        """Mark the control tokens in a client's text, so that they are read as plain text.

        A client who writes ``<|image|>`` or ``<|assistant|>`` writes characters: it can neither
        claim another place for a picture nor end its own turn.
        """
        clean = text.replace(_OPEN, "").replace(_CLOSE, "")
        return self.control.sub(lambda match: f"{_OPEN}{match[0]}{_CLOSE}", clean)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a rendered prompt; marked stretches become plain text."""
        if _OPEN not in text:
            return self._ids(text)
        ids: list[int] = []
        for piece in re.split(f"({_OPEN}[^{_CLOSE}]*{_CLOSE})", text):
            if piece.startswith(_OPEN):
                # one character at a time: no single one is a control token
                for character in piece.strip(_OPEN + _CLOSE):
                    ids.extend(self._ids(character))
            elif piece:
                ids.extend(self._ids(piece.replace(_OPEN, "").replace(_CLOSE, "")))
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, control tokens left out."""
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids


def _control_pattern(tokenizer: Tokenizer) -> re.Pattern[str]:
    """Match the special added tokens, the longest first."""
    added = tokenizer.get_added_tokens_decoder().values()
    tokens = sorted((t.content for t in added if t.special), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, tokens)) or "(?!)")
