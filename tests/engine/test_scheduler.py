"""Scheduling under any mix of requests, budgets and cancellations (no model)."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from forebay.core.request import TaskId
from forebay.engine.encoder_cache import EncoderCache
from forebay.engine.kv_blocks import BlockPool
from forebay.engine.limits import EngineLimits
from forebay.engine.scheduler import Plan, Scheduler
from forebay.engine.sequence import Chunk, ImageSpan, Sequence

TOKEN = 7


def sequence(
    name: str, prompt: int, answer: int, images: tuple[tuple[str, int], ...] = ()
) -> Sequence:
    """A prompt of ``prompt`` text tokens after pictures of (sha256, visual tokens)."""
    spans, at = [], 1
    for sha256, tokens in images:
        spans.append(ImageSpan(sha256, at, at + tokens))
        at += tokens + 1
    return Sequence(TaskId(name), [TOKEN] * (at + prompt), tuple(spans), answer)


class Machine:
    """A scheduler with a runner that computes nothing, and checks what every step was given."""

    def __init__(self, limits: EngineLimits, blocks: int, cache_bytes: int = 1_000) -> None:
        self.limits = limits
        self.pool = BlockPool(blocks, limits.kv_block)
        self.encoder: EncoderCache[str] = EncoderCache(cache_bytes)
        self.scheduler = Scheduler(limits, self.pool, self.encoder)
        self.live: list[Sequence] = []
        self.finished: list[TaskId] = []

    def add(self, new: Sequence) -> None:
        self.scheduler.add(new)
        self.live.append(new)

    def cancel(self, gone: Sequence) -> None:
        assert self.scheduler.remove(gone.task_id) is gone
        self.live.remove(gone)

    def step(self) -> Plan:
        before = {id(s): (s.computed, len(s.tokens)) for s in self.live}
        oldest = self.live[0] if self.live else None
        plan = self.scheduler.schedule()
        self._check_plan(plan)
        for _, span in plan.images:
            self.encoder.put(span.sha256, span.sha256, span.tokens)
        for chunk in plan.chunks:
            self._compute(chunk)
        if oldest is not None:
            # the promise behind "nothing starves": the oldest moves in every step
            after = (oldest.computed, len(oldest.tokens))
            assert oldest not in self.live or after > before[id(oldest)]
        self.scheduler.check()
        return plan

    def _check_plan(self, plan: Plan) -> None:
        sequences = [chunk.sequence for chunk in plan.chunks]
        assert len(set(map(id, sequences))) == len(sequences)
        assert sum(chunk.count for chunk in plan.chunks) <= self.limits.token_budget
        assert plan.prefill_tokens + plan.decode_tokens == sum(c.count for c in plan.chunks)
        encoded = [span.sha256 for _, span in plan.images]
        assert len(set(encoded)) == len(encoded)
        visual = sum(span.tokens for _, span in plan.images)
        assert visual <= self.limits.vision_budget or len(plan.images) == 1
        for chunk in plan.chunks:
            assert chunk.count > 0
            assert chunk.start == chunk.sequence.computed
            assert len(chunk.sequence.blocks) * self.limits.kv_block >= chunk.end
            for span in chunk.sequence.spans_within(chunk.start, chunk.end):
                assert span.sha256 in self.encoder or span.sha256 in encoded
        held = [block for s in self.scheduler.running for block in s.blocks]
        assert len(set(held)) == len(held)

    def _compute(self, chunk: Chunk) -> None:
        own = chunk.sequence
        for span in own.spans_within(chunk.start, chunk.end):
            assert self.encoder.get(span.sha256) == span.sha256
        self.scheduler.advance(chunk)
        if chunk.samples:
            own.tokens.append(TOKEN)
            if own.generated >= own.max_tokens:
                self.finished.append(own.task_id)
                self.cancel(own)


class SchedulerMachine(RuleBasedStateMachine):
    """Random arrivals, cancellations and steps; at the end everything drains."""

    @initialize(
        max_running=st.integers(1, 5),
        extra_tokens=st.integers(0, 20),
        vision_budget=st.integers(1, 12),
        kv_block=st.integers(1, 5),
        blocks=st.integers(12, 60),
        cache_bytes=st.integers(0, 30),
    )
    def begin(
        self, max_running, extra_tokens, vision_budget, kv_block, blocks, cache_bytes
    ) -> None:
        limits = EngineLimits(
            max_running=max_running,
            token_budget=max_running + extra_tokens,
            vision_budget=vision_budget,
            kv_block=kv_block,
        )
        self.machine = Machine(limits, blocks, cache_bytes)
        self.count = 0

    @rule(
        prompt=st.integers(1, 8),
        answer=st.integers(1, 8),
        images=st.lists(st.tuples(st.sampled_from("abcd"), st.just(4)), max_size=2),
    )
    def arrive(self, prompt: int, answer: int, images: list[tuple[str, int]]) -> None:
        new = sequence(f"s{self.count}", prompt, answer, tuple(images))
        self.count += 1
        if self.machine.pool.blocks_for(new.most_tokens) > self.machine.pool.total:
            with pytest.raises(ValueError, match="does not fit"):
                self.machine.scheduler.add(new)
        else:
            self.machine.add(new)

    @precondition(lambda self: self.machine.live)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.machine.cancel(data.draw(st.sampled_from(self.machine.live)))

    @rule(steps=st.integers(1, 6))
    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.machine.step()

    @invariant()
    def books_add_up(self) -> None:
        if hasattr(self, "machine"):
            self.machine.scheduler.check()

    def teardown(self) -> None:
        if not hasattr(self, "machine"):
            return
        bound = 200 * (1 + len(self.machine.live))
        while self.machine.live and bound:
            self.machine.step()
            bound -= 1
        assert not self.machine.live
        assert self.machine.pool.used == 0


SchedulerMachine.TestCase.settings = settings(
    max_examples=150, stateful_step_count=25, deadline=None
)
TestSchedulerMachine = SchedulerMachine.TestCase


def test_decoding_sequences_go_before_prefill_and_share_one_step() -> None:
    machine = Machine(EngineLimits(max_running=4, token_budget=10, kv_block=4), blocks=50)
    for name in ("a", "b"):
        machine.add(sequence(name, 2, 5))
    machine.step()
    machine.add(sequence("c", 20, 5))
    plan = machine.step()
    assert [(c.sequence.task_id, c.count) for c in plan.chunks] == [("a", 1), ("b", 1), ("c", 8)]
    assert (plan.decode_tokens, plan.prefill_tokens) == (2, 8)


def test_a_prompt_longer_than_the_token_budget_is_prefilled_in_chunks() -> None:
    machine = Machine(EngineLimits(max_running=1, token_budget=8, kv_block=4), blocks=50)
    machine.add(sequence("a", 20, 2))
    chunks = [machine.step().chunks[0] for _ in range(3)]
    assert [(c.start, c.end) for c in chunks] == [(0, 8), (8, 16), (16, 21)]


def test_a_picture_over_the_vision_budget_is_encoded_alone() -> None:
    limits = EngineLimits(max_running=4, token_budget=100, vision_budget=6, kv_block=4)
    machine = Machine(limits, blocks=50)
    machine.add(sequence("a", 1, 3, (("small", 4), ("large", 9))))
    assert [span.sha256 for _, span in machine.step().images] == ["small"]
    assert [span.sha256 for _, span in machine.step().images] == ["large"]


def test_a_picture_of_two_sequences_is_encoded_once() -> None:
    machine = Machine(EngineLimits(kv_block=4), blocks=50)
    machine.add(sequence("a", 1, 3, (("cat", 4),)))
    machine.add(sequence("b", 2, 3, (("cat", 4), ("dog", 4))))
    assert [span.sha256 for _, span in machine.step().images] == ["cat", "dog"]


def test_the_youngest_makes_room_when_blocks_run_out_and_still_finishes() -> None:
    machine = Machine(EngineLimits(max_running=3, token_budget=30, kv_block=2), blocks=12)
    for name in ("old", "middle", "young"):
        machine.add(sequence(name, 3, 12))
    preempted = 0
    for _ in range(100):
        preempted += machine.step().preempted
    assert preempted > 0
    assert machine.finished[0] == "old"
    assert sorted(machine.finished) == ["middle", "old", "young"]


def test_a_sequence_that_could_never_fit_is_refused() -> None:
    machine = Machine(EngineLimits(kv_block=4), blocks=4)
    with pytest.raises(ValueError, match="does not fit"):
        machine.add(sequence("a", 10, 6))


def test_a_second_sequence_of_the_same_id_is_refused() -> None:
    machine = Machine(EngineLimits(kv_block=4), blocks=40)
    machine.add(sequence("a", 1, 1))
    with pytest.raises(ValueError, match="already"):
        machine.scheduler.add(sequence("a", 1, 1))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_running": 0}, "max_running"),
        ({"token_budget": 4, "max_running": 8}, "token_budget"),
        ({"kv_tokens": 8}, "kv_tokens"),
    ],
)
def test_limits_under_which_a_sequence_could_starve_are_refused(fields, message) -> None:
    with pytest.raises(ValueError, match=message):
        EngineLimits(**fields)
