"""Decides what one step computes. Pure: no tensors, no clock, no randomness.

Sequences have a rank: by urgency, then by deadline, then by arrival. Those of low rank start first,
are never preempted for the others' sake, and get the budgets first.

A picture is encoded first, beside the steps or in one; the chunk that reads it comes in a later
step (:meth:`Scheduler.encoded` tells that it may). Meanwhile its sequence computes nothing.

Why nothing starves: the running sequence of lowest rank is never preempted, and any one alone fits
the KV cache (:meth:`Scheduler.add` sees to it), so it always advances, unless a picture of its own
is being encoded, and ends. A waiting one can
be overtaken by ``OVERTAKEN_LIMIT`` later ones; then it ranks before all that have not been, by
arrival alone, and nothing that comes later passes it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from forebay.core.request import TaskId
from forebay.engine.encoder_cache import EncoderCache
from forebay.engine.kv_blocks import BlockPool, IntegrityError
from forebay.engine.limits import EngineLimits
from forebay.engine.prefix import chain
from forebay.engine.sequence import Chunk, ImageSpan, Sequence

OVERTAKEN_LIMIT = 32
"""How many sequences that arrived later may start before a waiting one."""

Rank = tuple[int, float, int]


def rank(sequence: Sequence) -> Rank:
    """Return what sequences are ordered by; the lowest goes first."""
    if sequence.overtaken >= OVERTAKEN_LIMIT:
        return -1, -math.inf, sequence.arrival
    return sequence.urgency, sequence.deadline, sequence.arrival


@dataclass(slots=True)
class Plan:
    """What one step is to do: compute ``chunks``, and begin to encode ``images`` (owner and span).

    ``images_reused``: pictures whose embeddings were there already or are being made for another
    sequence; ``prefix_tokens``: tokens of sequences that started now whose keys and values were.
    """

    chunks: list[Chunk] = field(default_factory=list)
    images: list[tuple[Sequence, ImageSpan]] = field(default_factory=list)
    images_reused: int = 0
    prefix_tokens: int = 0
    preempted: int = 0
    prefill_tokens: int = 0
    decode_tokens: int = 0


@dataclass(slots=True)
class _Budget:
    """What is left of the step's tokens, and of what may be encoded at once."""

    tokens: int
    vision: int


class Scheduler:
    """Waiting and running sequences."""

    def __init__(self, limits: EngineLimits, pool: BlockPool, encoder: EncoderCache[Any]) -> None:
        self._limits = limits
        self._pool = pool
        self._encoder = encoder
        self._sequences: dict[TaskId, Sequence] = {}
        self._encoding: dict[str, int] = {}
        self._arrivals = 0
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []

    def add(self, sequence: Sequence) -> None:
        """Take a sequence among the waiting.

        Raises:
            ValueError: its id is here already, or it could never fit the KV cache.
        """
        if sequence.task_id in self._sequences:
            raise ValueError(f"sequence {sequence.task_id} is in the engine already")
        if self._pool.blocks_for(sequence.most_tokens) > self._pool.total:
            raise ValueError(f"sequence {sequence.task_id} does not fit the KV cache")
        self._sequences[sequence.task_id] = sequence
        self._arrivals += 1
        sequence.arrival = self._arrivals
        self.waiting.append(sequence)

    def remove(self, task_id: TaskId) -> Sequence | None:
        """Take a sequence out, finished or not, and free what it holds."""
        sequence = self._sequences.pop(task_id, None)
        if sequence is None:
            return None
        if sequence in self.running:
            self.running.remove(sequence)
        else:
            self.waiting.remove(sequence)
        self._give_back(sequence)
        return sequence

    @property
    def promised_tokens(self) -> int:
        """Tokens of KV cache that all sequences here may come to hold."""
        return sum(sequence.most_tokens for sequence in self._sequences.values())

    def overdue(self, now: float) -> list[Sequence]:
        """Return the sequences whose deadline has passed at ``now``; the caller removes them."""
        return [sequence for sequence in self._sequences.values() if sequence.deadline <= now]

    def schedule(self) -> Plan:
        """Choose the next step's work, and reserve the KV blocks it writes."""
        plan = Plan()
        encoding = sum(self._encoding.values())
        budget = _Budget(self._limits.token_budget, self._limits.vision_budget - encoding)
        self.running.sort(key=rank)
        self._continue_decodes(plan, budget)
        for sequence in [s for s in self.running if not s.decoding]:
            self._prefill(sequence, plan, budget)
        if not plan.preempted:
            self._admit(plan, budget)
        return plan

    def encoded(self, key: str) -> None:
        """Note that a picture of an earlier plan is encoded and cached, or was given up."""
        del self._encoding[key]

    def advance(self, chunk: Chunk) -> None:
        """Note that a chunk has been computed, and publish the blocks that it completed."""
        sequence, size = chunk.sequence, self._pool.block_size
        before, complete = sequence.computed // size, chunk.end // size
        if complete > before:  # most decoded tokens complete none
            digests = list(chain(sequence, complete, size))
            for at in range(before, complete):
                self._pool.publish(sequence.blocks[at], digests[at])
        sequence.computed = chunk.end
        if sequence.pins:
            self._unpin(sequence, sequence.pins - sequence.unread_images())

    def _continue_decodes(self, plan: Plan, budget: _Budget) -> None:
        """Give every decoding sequence its token; the last in rank make room for the first."""
        for sequence in [s for s in self.running if s.decoding]:
            while sequence in self.running and not self._grow(sequence):
                self._preempt(self.running[-1], plan)
            if sequence in self.running:
                plan.chunks.append(Chunk(sequence, sequence.computed, len(sequence.tokens)))
                plan.decode_tokens += 1
                budget.tokens -= 1

    def _grow(self, sequence: Sequence) -> bool:
        """Make the blocks hold every token of the sequence; False when none are free."""
        lacking = self._pool.blocks_for(len(sequence.tokens)) - len(sequence.blocks)
        if lacking <= 0:
            return True
        taken = self._pool.take(lacking)
        if taken is None:
            return False
        sequence.blocks.extend(taken)
        return True

    def _preempt(self, sequence: Sequence, plan: Plan) -> None:
        """Send a running sequence back to wait; it will be recomputed from its tokens."""
        self.running.remove(sequence)
        self._give_back(sequence)
        sequence.preemptions += 1
        self.waiting.append(sequence)
        plan.preempted += 1

    def _admit(self, plan: Plan, budget: _Budget) -> None:
        """Start waiting sequences by rank; none overtakes a first one that does not fit."""
        for sequence in sorted(self.waiting, key=rank):
            if budget.tokens <= 0 or len(self.running) >= self._limits.max_running:
                return
            size = self._pool.block_size
            # the last token is always computed: its logits choose the next one
            digests = list(chain(sequence, (len(sequence.tokens) - 1) // size, size))
            known = self._pool.find(digests)
            if self._follows(sequence, digests, len(known)):
                continue
            if not self._start(sequence, known):
                return
            self.waiting.remove(sequence)
            self.running.append(sequence)
            for other in self.waiting:
                other.overtaken += other.arrival < sequence.arrival
            plan.prefix_tokens += sequence.computed
            if not self._prefill(sequence, plan, budget):
                return

    def _follows(self, sequence: Sequence, digests: list[bytes], known: int) -> bool:
        """Whether a running sequence is about to compute what this one would have to compute.

        It is then worth waiting for: one picture asked about many times at once, or the several
        choices of one request, cost one prefill.
        """
        if sequence.overtaken >= OVERTAKEN_LIMIT:
            return False
        return known < len(digests) and any(
            digests[known] == other.digests[known]
            for other in self.running
            if other.computed // self._pool.block_size <= known < len(other.digests)
        )

    def _start(self, sequence: Sequence, known: list[int]) -> bool:
        """Give a waiting sequence its blocks, the ``known`` ones shared; or leave it."""
        self._pool.share(known)
        sequence.blocks, sequence.computed = known, len(known) * self._pool.block_size
        if self._leaves_room(sequence) and self._grow(sequence):
            return True
        self._give_back(sequence)
        return False

    def _leaves_room(self, sequence: Sequence) -> bool:
        """Whether running sequences would still have a block each to grow by."""
        needed = self._pool.blocks_for(len(sequence.tokens)) - len(sequence.blocks)
        return not self.running or self._pool.free - needed >= len(self.running)

    def _prefill(self, sequence: Sequence, plan: Plan, budget: _Budget) -> bool:
        """Plan as much of a prompt as can be; False when the budgets allowed not all.

        A chunk waits for all of its pictures: computing what is before them would only make two
        small chunks of one.
        """
        start = sequence.computed
        end = min(len(sequence.tokens), start + budget.tokens)
        spans = list(sequence.spans_within(start, end))
        refused = [span for span in spans if not self._request(sequence, span, plan, budget)]
        if any(span.sha256 not in self._encoder for span in spans):
            return not refused
        if end > start:
            plan.chunks.append(Chunk(sequence, start, end))
            plan.prefill_tokens += end - start
            budget.tokens -= end - start
        return end == len(sequence.tokens)

    def _request(self, sequence: Sequence, span: ImageSpan, plan: Plan, budget: _Budget) -> bool:
        """Have a picture encoded and kept for a sequence; False when the budget forbids it now."""
        key = span.sha256
        if key not in self._encoder and key not in self._encoding:
            # a picture over the whole budget goes when no other is being encoded
            if span.tokens > budget.vision and self._encoding:
                budget.vision = 0  # no smaller one of a later rank passes it
                return False
            budget.vision -= span.tokens
            self._encoding[key] = span.tokens
            plan.images.append((sequence, span))
        elif key not in sequence.pins:
            plan.images_reused += 1
        if key not in sequence.pins:
            sequence.pins.add(key)
            self._encoder.pin(key)
        return True

    def _give_back(self, sequence: Sequence) -> None:
        self._pool.release(sequence.blocks)
        sequence.blocks, sequence.computed = [], 0
        self._unpin(sequence, set(sequence.pins))

    def _unpin(self, sequence: Sequence, keys: set[str]) -> None:
        for key in keys:
            sequence.pins.remove(key)
            self._encoder.unpin(key)

    def check(self) -> None:
        """Raise IntegrityError unless blocks, pins and sequences add up."""
        everyone = [*self.running, *self.waiting]
        if len(everyone) != len(self._sequences):
            raise IntegrityError("a sequence is neither waiting nor running, or is both")
        if len(self.running) > self._limits.max_running:
            raise IntegrityError("more sequences run than max_running allows")
        self._pool.check(sequence.blocks for sequence in everyone)
        self._encoder.check(Counter(_pins(everyone)))
        if any(key in self._encoder for key in self._encoding):
            raise IntegrityError("a picture that is encoded counts as being encoded")
        for sequence in everyone:
            if self._pool.blocks_for(sequence.computed) > len(sequence.blocks):
                raise IntegrityError(f"sequence {sequence.task_id} lacks KV blocks")
            if not sequence.pins <= sequence.unread_images():
                raise IntegrityError(f"sequence {sequence.task_id} pins a picture it has read")


def _pins(sequences: list[Sequence]) -> Iterator[str]:
    return (key for sequence in sequences for key in sequence.pins)
