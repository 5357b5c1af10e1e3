"""Constrained decoding: which tokens may come next, by a grammar that follows the answer."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Final

from llguidance import LLMatcher, LLTokenizer

from forebay.core.constraint import Constraint
from forebay.core.errors import InvalidConstraintError, TaskFailedError
from forebay.grammars import LIMITS, TOO_DEEP, brief, library_form, panics_as_faults

MOST_COMPILED = 32
"""Compiled grammars that are kept; the one not asked for longest makes room."""


_NO_MARKS: Final[Mapping[str, int]] = {}


class GrammarState:
    """How far one answer has come in its grammar. It lives as long as the answer.

    ``ends``: tokens that may come where the answer is complete, and end it.
    """

    def __init__(self, matcher: LLMatcher, ends: frozenset[int]) -> None:
        self._matcher = matcher
        self.ends = ends

    def fork(self) -> GrammarState:
        """Return a state of its own at the same place."""
        return GrammarState(self._matcher.deep_copy(), self.ends)

    def allowed(self) -> bytes:
        """Return a bit for each token id, the lowest first: which may come next.

        Raises:
            InvalidConstraintError: the grammar takes more steps than one token is worth.
        """
        mask = self._matcher.compute_bitmask()
        self._check()
        return mask

    def accept(self, token: int) -> bool:
        """Take the token that came; True when the answer is complete and nothing may follow.

        Raises:
            InvalidConstraintError: as :meth:`allowed`.
        """
        if token in self.ends:
            return True
        self._matcher.consume_token(token)
        self._check()
        return self._matcher.is_stopped()

    def _check(self) -> None:
        if self._matcher.is_error():
            fault = brief(self._matcher.get_error())
            raise InvalidConstraintError(f"the constraint cannot be followed: {fault}")


class GrammarCompiler:
    """Compiles constraints for one tokenizer, off the step thread. Thread-safe.

    ``tokenizer``: the JSON of ``tokenizers``; ``vocabulary``: ids that the logits have;
    ``stop_ids``: tokens that may end an answer; ``marks``: those that stand around a call.
    """

    def __init__(
        self,
        tokenizer: str,
        vocabulary: int,
        stop_ids: Iterable[int],
        marks: Mapping[str, int] = _NO_MARKS,
    ) -> None:
        self._tokenizer_json = tokenizer
        self._vocabulary = vocabulary
        self._stop_ids = sorted(stop_ids)
        self._marks = marks
        self._tokenizer: LLTokenizer | None = None
        self._compiled: OrderedDict[Constraint, GrammarState] = OrderedDict()
        self._lock = threading.Lock()

    def compile(self, constraint: Constraint) -> GrammarState:
        """Return the grammar at its beginning; fork it for each answer.

        Raises:
            InvalidConstraintError: saying what is wrong with the constraint.
            TaskFailedError: the model's vocabulary cannot be read.
        """
        with self._lock:
            found = self._compiled.get(constraint)
            if found is not None:
                self._compiled.move_to_end(constraint)
                return found
            tokenizer = self._read()
        state = _compiled(constraint, tokenizer, self._marks)
        with self._lock:
            self._compiled[constraint] = state
            if len(self._compiled) > MOST_COMPILED:
                self._compiled.popitem(last=False)
        return state

    def load(self) -> None:
        """Read the vocabulary, so that no constraint has to wait for it.

        A large one takes about a second, and the library holds the interpreter's lock meanwhile:
        while others are answered, all of them would wait.

        Raises:
            TaskFailedError: it cannot be read; each constraint will meet the same.
        """
        with self._lock:
            self._read()

    def _read(self) -> LLTokenizer:
        """Return the vocabulary, read once. Under the lock."""
        if self._tokenizer is None:
            try:
                self._tokenizer = LLTokenizer(
                    _with_hidden_added_tokens(self._tokenizer_json),
                    n_vocab=self._vocabulary,
                    eos_token=self._stop_ids or None,
                )
            except (ValueError, KeyError) as error:
                raise TaskFailedError(
                    f"answers of this model cannot be constrained: its vocabulary is of a form "
                    f"that is not read ({brief(str(error))})"
                ) from error
        return self._tokenizer


def _with_hidden_added_tokens(tokenizer: str) -> str:
    """Return the tokenizer's JSON with names for its added tokens that stand in no text.

    Where a grammar leaves one text only, the library tokenises it. A text that spells such a token
    is to come out as its characters: one control token would end the answer, and of others the
    library says that they must come and then that they may not.
    """
    parts = json.loads(tokenizer)
    for one in parts["added_tokens"]:
        one |= {"content": f"\ue0f0{one['id']}\ue0f1", "special": True}  # for private use
    return json.dumps(parts)


def _compiled(
    constraint: Constraint, tokenizer: LLTokenizer, marks: Mapping[str, int]
) -> GrammarState:
    try:
        form = library_form(constraint, marks)
        with panics_as_faults():
            matcher = LLMatcher(tokenizer, form, log_level=0, limits=LIMITS)
    except ValueError as error:
        raise InvalidConstraintError(brief(str(error))) from error
    except RecursionError as error:
        raise InvalidConstraintError(TOO_DEEP) from error
    if not matcher.is_error():
        matcher.compute_bitmask()  # the first one builds what every fork then shares
    if matcher.is_error():
        raise InvalidConstraintError(brief(matcher.get_error()))
    return GrammarState(matcher, frozenset(tokenizer.eos_tokens))
