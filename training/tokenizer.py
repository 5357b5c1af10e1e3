"""Builds the demo model's tokenizer: byte-level BPE whose merges are written by hand.

Digits and letters stay single tokens, every Chinese character of the lists is one token, and an
English word of the questions is one token where a space precedes it.
"""

from __future__ import annotations

from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from training.lists import COLOUR_NAMES, COLOURS, HANZI, REASONS
from training.questions import TALK, every_question

SPECIAL = (
    "<|endoftext|>", "[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>", "<|system|>", "<|user|>",
    "<|assistant|>", "<|observation|>", "<|begin_of_image|>", "<|end_of_image|>",
    "<|begin_of_video|>", "<|end_of_video|>", "<|begin_of_audio|>", "<|end_of_audio|>",
    "<|image|>", "<|video|>",
)  # fmt: skip
PLAIN = (
    "<think>", "</think>", "<|begin_of_box|>", "<|end_of_box|>", "<tool_call>", "</tool_call>",
    "<tool_response>", "</tool_response>", "/nothink",
)  # fmt: skip
VOCABULARY = 1536
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHAT_TEMPLATE = (Path(__file__).parent / "chat_template.jinja").read_text(encoding="utf-8")


def _byte_names() -> dict[int, str]:
    """Return the printable stand-in of each byte (GPT-2's table)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    names = {byte: chr(byte) for byte in plain}
    spare = (byte for byte in range(256) if byte not in names)
    names.update({byte: chr(256 + at) for at, byte in enumerate(spare)})
    return names


def _texts() -> list[str]:
    answers = [answer for _, answer, _ in TALK]
    answers += [a for pair in REASONS.values() for a in pair]
    answers += [*COLOUR_NAMES, *(entry[0] for entry in COLOURS.values())]
    return every_question() + answers


def build() -> Tokenizer:
    """Build the tokenizer."""
    names = _byte_names()
    vocabulary = {names[byte]: byte for byte in range(256)}
    merges: list[tuple[str, str]] = []

    def grow(pieces: list[str]) -> None:
        whole = pieces[0]
        for piece in pieces[1:]:
            joined = whole + piece
            if joined not in vocabulary:
                vocabulary[joined] = len(vocabulary)
                merges.append((whole, piece))
            whole = joined

    texts = _texts()
    hanzi = dict.fromkeys(HANZI + "".join(c for t in texts for c in t if ord(c) > 0x2E80))
    for character in (*hanzi, "¥", "€", "\uff1f", "\u3002"):
        grow([names[byte] for byte in character.encode()])
    words = {w.strip("!.?,'") for t in texts for w in t.lower().split() if w.isascii()}
    for word in sorted(w for w in words if w.isalpha() and len(w) > 1):
        grow([names[byte] for byte in f" {word}".encode()])
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in SPECIAL])
    tokenizer.add_tokens([AddedToken(t, special=False) for t in PLAIN])
    if tokenizer.get_vocab_size() > VOCABULARY:
        raise ValueError(f"{tokenizer.get_vocab_size()} tokens do not fit in {VOCABULARY}")
    return tokenizer
