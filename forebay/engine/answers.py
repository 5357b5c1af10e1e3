"""Answers in the making: from logits to tokens, text, stops and events."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field

from torch import Tensor

from forebay.core.errors import ForebayError, InvalidConstraintError, TaskFailedError
from forebay.core.events import (
    Choice,
    EngineEvent,
    Failed,
    Finished,
    FinishReason,
    PhaseBegun,
    TokenDelta,
    TokenLogprob,
    Usage,
)
from forebay.core.lifecycle import PHASES, State
from forebay.core.request import TaskId
from forebay.engine.detokenizer import Detokenizer
from forebay.engine.grammar import GrammarState
from forebay.engine.penalties import TokenCounts, is_penalised
from forebay.engine.prepared import PreparedRequest
from forebay.engine.sampler import Row, Sampled, choosable, sample
from forebay.engine.sequence import Sequence
from forebay.models.tokenizer import TextTokenizer

NOT_FINITE = (
    "the model computed no finite number for the next token: this request overflows it, or its "
    "weights are damaged"
)


@dataclass(slots=True)
class _Answer:
    """One answer: what it has said, and what its next token depends on."""

    request: PreparedRequest
    index: int
    ends: frozenset[int]
    detokenizer: Detokenizer
    counts: TokenCounts | None
    grammar: GrammarState | None
    unreported: int = 0
    untold: list[TokenLogprob] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)

    def row(self, position: int) -> Row:
        """Return what the token at ``position`` is chosen by."""
        params = self.request.sampling
        return Row(
            params,
            seed=self.request.seed,
            position=position,
            index=self.index,
            counts=self.counts,
            banned=self.ends if position < params.min_tokens else (),
            allowed=None if self.grammar is None else self.grammar.allowed(),
        )

    def delta(self, text: str) -> TokenDelta:
        """Return what is new since the last one."""
        task_id, told = self.request.task_id, tuple(self.untold)
        delta = TokenDelta(task_id, text, self.unreported, self.index, told)
        self.logprobs.extend(told)
        self.unreported = 0
        self.untold.clear()
        return delta


@dataclass(slots=True)
class _Task:
    """A request's answers: those in the making by their sequence, those that ended by index."""

    request: PreparedRequest
    answers: dict[TaskId, _Answer]
    ended: dict[int, Choice] = field(default_factory=dict)
    tokens: int = 0
    phases: int = 0  # of PHASES, those that have begun or been left out


@dataclass(slots=True)
class Progress:
    """What became of a step's tokens: ``events``, and the sequences that have ``ended`` by it."""

    events: list[EngineEvent] = field(default_factory=list)
    ended: list[TaskId] = field(default_factory=list)


class Answers:
    """What every sequence of the engine has said so far.

    A request for n answers has n sequences; the first bears the task's own id. All that is kept
    here belongs to the sequence and not to a step, so it survives preemption.
    """

    def __init__(self, tokenizer: TextTokenizer, stop_ids: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self.stop_ids = stop_ids
        self._tasks: dict[TaskId, _Task] = {}
        self._task_of: dict[TaskId, _Task] = {}

    def __len__(self) -> int:
        return len(self._task_of)

    def __contains__(self, task_id: TaskId) -> bool:
        return task_id in self._tasks

    def request(self, sequence_id: TaskId) -> PreparedRequest:
        """Return what a sequence was made from."""
        return self._task_of[sequence_id].request

    def open(self, prepared: PreparedRequest) -> list[TaskId]:
        """Begin the answers to a request; return the names of their sequences."""
        names = [_sequence_id(prepared.task_id, at) for at in range(prepared.sampling.n)]
        answers = {name: self._begin(prepared, at) for at, name in enumerate(names)}
        task = self._tasks[prepared.task_id] = _Task(prepared, answers)
        self._task_of.update(dict.fromkeys(names, task))
        return names

    def begin(self, phase: State, names: Iterable[TaskId], at: float) -> list[EngineEvent]:
        """Note that the tasks of these sequences are in a phase; say for which that is new."""
        events: list[EngineEvent] = []
        order = PHASES.index(phase) + 1
        for task in (self._task_of[name] for name in names):
            if task.phases < order:
                task.phases = order
                events.append(PhaseBegun(task.request.task_id, phase, at))
        return events

    def drop(self, task_id: TaskId) -> list[TaskId]:
        """Forget a task; return the names of its sequences that had not ended."""
        task = self._tasks.pop(task_id, None)
        names = list(task.answers) if task is not None else []
        for name in names:
            del self._task_of[name]
        return names

    def extend(self, sequences: Seq[Sequence], logits: Tensor) -> Progress:
        """Choose each sequence's next token by its row of logits; say what comes of it."""
        progress = Progress()
        if not sequences:
            return progress
        found = [
            self._row(sequence, progress, speaks=speaks)
            for sequence, speaks in zip(sequences, choosable(logits), strict=True)
        ]
        rows = [row for row in found if row is not None]
        if not rows:
            return progress
        if len(rows) < len(found):
            kept = [at for at, row in enumerate(found) if row is not None]
            sequences, logits = [sequences[at] for at in kept], logits[kept]
        for sequence, sampled in zip(sequences, sample(logits, rows), strict=True):
            if sequence.task_id in self._task_of:  # not failed by another of its answers
                self._take(sequence, sampled, progress)
        return progress

    def _begin(self, prepared: PreparedRequest, index: int) -> _Answer:
        params = prepared.sampling
        own = frozenset[int]() if params.ignore_eos else self.stop_ids
        return _Answer(
            request=prepared,
            index=index,
            ends=own.union(params.stop_token_ids),
            detokenizer=Detokenizer(self._tokenizer.shown_bytes, params.stop),
            counts=TokenCounts(params, prepared.token_ids) if is_penalised(params) else None,
            grammar=None if prepared.grammar is None else prepared.grammar.fork(),
        )

    def _answer(self, sequence: Sequence) -> _Answer:
        return self._task_of[sequence.task_id].answers[sequence.task_id]

    def _row(self, sequence: Sequence, progress: Progress, *, speaks: bool) -> Row | None:
        """Return what the next token is chosen by; None where the answer has failed.

        ``speaks``: whether the model's logits say anything.
        """
        if sequence.task_id not in self._task_of:
            return None
        answer = self._answer(sequence)
        if not speaks:
            self._fail(answer, TaskFailedError(NOT_FINITE), progress)
            return None
        try:
            return answer.row(sequence.generated)
        except InvalidConstraintError as error:
            self._fail(answer, error, progress)
            return None

    def _take(self, sequence: Sequence, sampled: Sampled, progress: Progress) -> None:
        """Append a token to its sequence, and end the answer where it is due."""
        answer = self._answer(sequence)
        sequence.tokens.append(sampled.token)
        answer.unreported += 1
        try:
            reason, text = self._grow(answer, sequence, sampled)
        except InvalidConstraintError as error:
            self._fail(answer, error, progress)
            return
        if reason is not None:
            text += answer.detokenizer.finish()
        if text or (reason is not None and answer.untold):
            progress.events.append(answer.delta(text))
        if reason is not None:
            self._end(sequence, answer, reason, progress)

    def _grow(
        self, answer: _Answer, sequence: Sequence, sampled: Sampled
    ) -> tuple[FinishReason | None, str]:
        """Return why the answer ends with this token, if it does, and the text it lets out."""
        token, generated = sampled.token, sequence.generated
        complete = answer.grammar is not None and answer.grammar.accept(token)
        if answer.counts is not None:
            answer.counts.add(token)
        if token in answer.ends or (answer.grammar is not None and token in answer.grammar.ends):
            return FinishReason.STOP, ""
        if sampled.logprob is not None:
            answer.untold.append(self._told(sampled, sampled.logprob))
        may_stop = generated > answer.request.sampling.min_tokens
        text = answer.detokenizer.push(token, may_stop=may_stop)
        if answer.detokenizer.stopped or complete:
            return FinishReason.STOP, text
        return FinishReason.LENGTH if generated >= sequence.max_tokens else None, text

    def _told(self, sampled: Sampled, logprob: float) -> TokenLogprob:
        token_bytes = self._tokenizer.token_bytes
        top = tuple((token_bytes(token), value) for token, value in sampled.top)
        return TokenLogprob(token_bytes(sampled.token), logprob, top)

    def _end(
        self, sequence: Sequence, answer: _Answer, reason: FinishReason, progress: Progress
    ) -> None:
        """Close one answer; with the last one the task has finished."""
        task = self._task_of.pop(sequence.task_id)
        del task.answers[sequence.task_id]
        text, logprobs = answer.detokenizer.text, tuple(answer.logprobs)
        task.ended[answer.index] = Choice(text, reason, logprobs)
        task.tokens += sequence.generated
        progress.ended.append(sequence.task_id)
        if task.answers:
            return
        del self._tasks[task.request.task_id]
        first, *others = (task.ended[index] for index in sorted(task.ended))
        usage = Usage(sequence.prompt_length, task.tokens)
        reason = FinishReason(first.reason)
        progress.events.append(
            Finished(task.request.task_id, first.text, reason, usage, first.logprobs, tuple(others))
        )

    def _fail(self, answer: _Answer, error: ForebayError, progress: Progress) -> None:
        task_id = answer.request.task_id
        progress.ended.extend(self.drop(task_id))
        progress.events.append(Failed(task_id, error.code, error.message))


def _sequence_id(task_id: TaskId, index: int) -> TaskId:
    return task_id if index == 0 else TaskId(f"{task_id}#{index}")
