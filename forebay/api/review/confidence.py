"""How sure the model is of what it said, from the probabilities of its tokens. Pure.

The probabilities are the model's own, before any constraint: a constraint leaves only the allowed
results possible, so those of the results are set in relation to each other.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Final

from forebay.api.review.template import AnswerForm
from forebay.core.events import TokenLogprob

ALTERNATIVES: Final = 8
"""Likeliest tokens that are asked for at each place. Results part within a letter or two, and each
has few ways to go on; they are kept with the answer for as long as that is."""

_JSON_BEGINS: Final = re.compile(rb'"result"\s*:\s*"')
_JSON_ENDS: Final = (b'"',)
_LINE_ENDS: Final = (b":", "：".encode())


def mean_probability(told: Sequence[TokenLogprob]) -> float | None:
    """Return the mean probability of an answer's tokens, None where none are known."""
    if not told:
        return None
    return sum(math.exp(min(0.0, one.logprob)) for one in told) / len(told)


def result_probability(told: Sequence[TokenLogprob], form: AnswerForm, result: str) -> float | None:
    """Return the probability of ``result`` among the allowed ones, None where it is not known.

    It is the chance with which the model, held to the form, says this result at temperature 1: the
    product, over the tokens that spell it, of the share that tokens leading to it have among the
    tokens that lead to any result still possible there. A result none of whose tokens is among the
    likeliest counts as the least likely of these: too much, on the side of doubt.
    """
    spelled = b"".join(one.token for one in told)
    start, ends = _place(spelled, form)
    words = {one: word.encode() for one, word in form.words.items()}
    if start is None or not spelled.startswith(words[result], start):
        return None
    probability, at = 1.0, 0
    for one in told:
        following = at + len(one.token)
        if one.token and following > start and at < start + len(words[result]):
            left = {
                name: (spelled[:start] + word)[at:]
                for name, word in words.items()
                if (spelled[:start] + word).startswith(spelled[:at])
            }
            probability *= _share(one, left, result, ends)
        at = following
    return probability


def _place(spelled: bytes, form: AnswerForm) -> tuple[int | None, tuple[bytes, ...]]:
    """Return where the result begins, in bytes, and what may follow it."""
    if form.kind == "line":
        return len(spelled) - len(spelled.lstrip()), _LINE_ENDS
    found = _JSON_BEGINS.search(spelled)
    return (found.end() if found else None), _JSON_ENDS


def _share(
    one: TokenLogprob, left: dict[str, bytes], result: str, ends: tuple[bytes, ...]
) -> float:
    """Return which share of what leads to a result leads to this one, at one place.

    ``left``: of each result still possible, the bytes that are yet to come.
    """
    if len(left) == 1:
        return 1.0
    unseen = math.exp(min([logprob for _, logprob in one.top] or [one.logprob]))
    told = {token: math.exp(min(0.0, logprob)) for token, logprob in (*one.top, _own(one)) if token}
    leading = {
        name: {token for token in told if _leads(token, rest, ends)} for name, rest in left.items()
    }
    whole = sum(told[token] for token in set().union(*leading.values()))
    whole += unseen * sum(not tokens for tokens in leading.values())
    own = sum(told[token] for token in leading[result])
    return own / whole if whole else 0.0


def _own(one: TokenLogprob) -> tuple[bytes, float]:
    return one.token, one.logprob


def _leads(token: bytes, rest: bytes, ends: tuple[bytes, ...]) -> bool:
    """Return whether a token is a part of ``rest``, or the whole of it and a permitted end."""
    if rest.startswith(token):
        return True
    return token.startswith(rest) and token[len(rest) :].startswith(ends)
