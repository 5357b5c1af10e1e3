"""Text to token ids and back, and a guard against control tokens in clients' text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer, decoders

from forebay.core.tools import MARKS, RESULT_MARKS
from forebay.models.errors import CorruptFileError
from forebay.models.files import require_file

# Private-use characters that mark a control token which a client wrote, between rendering the chat
# template and tokenising. Those that a client sends are dropped.
_OPEN, _CLOSE = "\ue0f0", "\ue0f1"


@dataclass(frozen=True, slots=True)
class TextTokenizer:
    """The checkpoint's tokenizer. Safe to use from several threads.

    ``special``: ids of its control tokens, which stand in no text. The marks of a call are none of
    them, whatever the checkpoint says: calls are read from the text.
    """

    tokenizer: Tokenizer
    control: re.Pattern[str]
    special: frozenset[int]

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> TextTokenizer:
        """Wrap a tokenizer of the ``tokenizers`` library."""
        added = tokenizer.get_added_tokens_decoder().items()
        special = frozenset(
            token_id for token_id, token in added if token.special and token.content not in MARKS
        )
        return cls(tokenizer, _control_pattern(tokenizer), special)

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
        if not isinstance(tokenizer.decoder, decoders.ByteLevel):
            raise CorruptFileError(path, "not a byte-level tokenizer; the model's family has one")
        return cls.of(tokenizer)

    def token_id(self, token: str) -> int | None:
        """Return the id of a token, None where the vocabulary has no such token."""
        found: int | None = self.tokenizer.token_to_id(token)
        return found

    @property
    def call_marks(self) -> dict[str, int]:
        """The tokens of the marks of a call, of those marks that are one."""
        added = self.tokenizer.get_added_tokens_decoder().items()
        return {token.content: token_id for token_id, token in added if token.content in MARKS}

    def guard(self, text: str) -> str:
        """Mark the control tokens in a client's text, so that they are read as plain text.

        A client who writes ``<|image|>`` or ``<|assistant|>`` writes characters: it can neither
        claim another place for a picture nor end its own turn. So does a function's result in
        which ``</tool_response>`` or ``<tool_call>`` stands.
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

    def encode_whole(self, text: str) -> list[int]:
        """Return the ids of a text that is the whole prompt, as the checkpoint's own users have it.

        Control tokens are read as such, and the tokenizer puts its own beginning before them.
        """
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=True).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, control tokens left out."""
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def token_bytes(self, token_id: int) -> bytes:
        """Return what a token stands for, b"" for an id that is none.

        A token may be a part of a character only. A control token gives its name.
        """
        piece: str | None = self.tokenizer.id_to_token(token_id)
        if piece is None:
            return b""
        try:
            return bytes(_BYTE_OF[character] for character in piece)
        except KeyError:  # an added token is written as it is
            return piece.encode()

    def shown_bytes(self, token_id: int) -> bytes:
        """Return what a token adds to the text: nothing, where it is a control token."""
        return b"" if token_id in self.special else self.token_bytes(token_id)

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids


def _byte_alphabet() -> dict[str, int]:
    """Map the characters in which byte-level BPE writes bytes: printable ones stand for themselves.

    Source: ``bytes_to_unicode`` of GPT-2, and ``ByteLevel`` of the ``tokenizers`` library.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    return alphabet | {chr(256 + at): byte for at, byte in enumerate(others)}


_BYTE_OF = _byte_alphabet()


def _control_pattern(tokenizer: Tokenizer) -> re.Pattern[str]:
    """Match the special added tokens and the marks of calls, the longest first."""
    added = tokenizer.get_added_tokens_decoder().values()
    marks = {*MARKS, *RESULT_MARKS}
    control = (t.content for t in added if t.special or t.content in marks)
    tokens = sorted(control, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, tokens)) or "(?!)")
