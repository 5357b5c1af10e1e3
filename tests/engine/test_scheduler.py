"""Scheduling under any mix of requests, budgets and cancellations (no model)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from forebay.core.request import TaskId
from forebay.engine.encoder_cache import EncoderCache
from forebay.engine.kv_blocks import BlockPool
from forebay.engine.limits import EngineLimits
from forebay.engine.scheduler import OVERTAKEN_LIMIT, Plan, Scheduler, rank
from forebay.engine.sequence import Chunk, ImageSpan, Sequence

TOKEN = 7


def sequence(
    name: str,
    prompt: int,
    answer: int,
    images: tuple[tuple[str, int], ...] = (),
    *,
    urgency: int = 0,
    deadline: float = math.inf,
    own: bool = True,
) -> Sequence:
    """A prompt of ``prompt`` text tokens after pictures of (sha256, visual tokens).

    ``own``: its first token is its alone, so that it shares no beginning with another.
    """
    spans, at = [], 1
    for sha256, tokens in images:
        spans.append(ImageSpan(sha256, at, at + tokens))
        at += tokens + 1
    tokens_ = [hash(name) if own else TOKEN, *[TOKEN] * (at + prompt - 1)]
    return Sequence(TaskId(name), tokens_, tuple(spans), answer, urgency, deadline)


Story = tuple[object, ...]


def story(own: Sequence, at: int) -> Story:
    """All that the keys and values at a place follow from."""
    pictures = tuple((s.sha256, s.start) for s in own.images if s.start <= at)
    return (*own.tokens[: at + 1], *pictures)


class Machine:
    """A scheduler with a runner that computes nothing, and checks what every step was given."""

    def __init__(self, limits: EngineLimits, blocks: int, cache_bytes: int = 1_000) -> None:
        self.limits = limits
        self.pool = BlockPool(blocks, limits.kv_block)
        self.encoder: EncoderCache[str] = EncoderCache(cache_bytes)
        self.scheduler = Scheduler(limits, self.pool, self.encoder)
        self.live: list[Sequence] = []
        self.finished: list[TaskId] = []
        self.content: dict[tuple[int, int], Story] = {}
        self.encoding: dict[str, int] = {}

    def add(self, new: Sequence) -> None:
        self.scheduler.add(new)
        self.live.append(new)

    def cancel(self, gone: Sequence) -> None:
        assert self.scheduler.remove(gone.task_id) is gone
        self.live.remove(gone)

    def encode(self, keys: Iterable[str]) -> None:
        """Let pictures that are being encoded come to their end."""
        for key in keys:
            self.encoder.put(key, key, self.encoding.pop(key))
            self.scheduler.encoded(key)

    def give_up(self, key: str) -> None:
        """Let a picture that no running sequence wants any more be dropped before its turn."""
        assert not self.encoder.pinned(key)
        del self.encoding[key]
        self.scheduler.encoded(key)

    def step(self) -> Plan:
        before = {id(s): (s.computed, len(s.tokens)) for s in self.live}
        running = list(self.scheduler.running)
        first = min(running or self.live, key=rank, default=None)
        plan = self.scheduler.schedule()
        self._check_plan(plan)
        self._check_order(set(map(id, running)))
        for chunk in plan.chunks:
            self._compute(chunk)
        if first is not None:
            # the promise behind "nothing starves": the first in rank moves in every step in which
            # no picture is being encoded
            after = (first.computed, len(first.tokens))
            assert first not in self.live or after > before[id(first)] or self.encoding
        self.scheduler.check()
        return plan

    def _check_order(self, ran: set[int]) -> None:
        """Nothing that waits ranks before what has just started, or was overtaken too often."""
        started = [s for s in self.scheduler.running if id(s) not in ran]
        for waiting in self.scheduler.waiting:
            assert waiting.overtaken <= OVERTAKEN_LIMIT
            # one that has just been overtaken for the last time ranks first from now on
            last = waiting.overtaken == OVERTAKEN_LIMIT
            follows = any(s.tokens[0] == waiting.tokens[0] for s in self.scheduler.running)
            assert last or follows or all(rank(new) < rank(waiting) for new in started)

    def _check_plan(self, plan: Plan) -> None:
        sequences = [chunk.sequence for chunk in plan.chunks]
        assert len(set(map(id, sequences))) == len(sequences)
        assert sum(chunk.count for chunk in plan.chunks) <= self.limits.token_budget
        assert plan.prefill_tokens + plan.decode_tokens == sum(c.count for c in plan.chunks)
        begun = {span.sha256: span.tokens for _, span in plan.images}
        assert len(begun) == len(plan.images)
        assert not begun.keys() & self.encoding.keys()
        self.encoding.update(begun)
        visual = sum(self.encoding.values())
        assert visual <= self.limits.vision_budget or len(self.encoding) == 1
        for chunk in plan.chunks:
            assert chunk.count > 0
            assert chunk.start == chunk.sequence.computed
            assert len(chunk.sequence.blocks) * self.limits.kv_block >= chunk.end
            for span in chunk.sequence.spans_within(chunk.start, chunk.end):
                assert span.sha256 in self.encoder
        held = Counter(block for s in self.scheduler.running for block in s.blocks)
        for chunk in plan.chunks:
            # what a step writes to is nobody else's
            first = chunk.start // self.limits.kv_block
            assert all(held[block] == 1 for block in chunk.sequence.blocks[first:])

    def _compute(self, chunk: Chunk) -> None:
        own = chunk.sequence
        size = self.limits.kv_block
        for at in range(chunk.start):
            # what it reads instead of computing is what it would have computed
            assert self.content[own.blocks[at // size], at % size] == story(own, at)
        for at in range(chunk.start, chunk.end):
            self.content[own.blocks[at // size], at % size] = story(own, at)
        for span in own.spans_within(chunk.start, chunk.end):
            assert self.encoder.get(span.sha256) == span.sha256
        self.scheduler.advance(chunk)
        if chunk.samples:
            own.tokens.append(TOKEN)
            if own.generated >= own.max_tokens:
                self.finished.append(own.task_id)
                self.cancel(own)


def begun(plan: Plan) -> list[str]:
    """The pictures that a plan begins to encode."""
    return [span.sha256 for _, span in plan.images]


def names(plan: Plan) -> list[TaskId]:
    """Whose chunks a plan has."""
    return [chunk.sequence.task_id for chunk in plan.chunks]


def look(machine: Machine) -> Plan:
    """Step, encode the pictures that the step has begun, step again; return the first plan."""
    plan = machine.step()
    machine.encode(list(machine.encoding))
    machine.step()
    return plan


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
        urgency=st.integers(0, 2),
        deadline=st.sampled_from((1.0, 2.0, math.inf)),
        own=st.booleans(),
    )
    def arrive(self, prompt, answer, images, urgency, deadline, own) -> None:
        new = sequence(
            f"s{self.count}",
            prompt,
            answer,
            tuple(images),
            urgency=urgency,
            deadline=deadline,
            own=own,
        )
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

    @precondition(lambda self: self.machine.encoding)
    @rule(data=st.data())
    def encode_one(self, data: st.DataObject) -> None:
        self.machine.encode([data.draw(st.sampled_from(sorted(self.machine.encoding)))])

    @precondition(lambda self: self.unwanted())
    @rule(data=st.data())
    def give_up_one(self, data: st.DataObject) -> None:
        self.machine.give_up(data.draw(st.sampled_from(self.unwanted())))

    def unwanted(self) -> list[str]:
        return sorted(key for key in self.machine.encoding if not self.machine.encoder.pinned(key))

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
            self.machine.encode(list(self.machine.encoding)[:1])
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
    machine.add(sequence("b", 1, 3, (("other", 2),)))
    assert begun(machine.step()) == ["small"]
    assert begun(machine.step()) == []
    machine.encode(["small"])
    # what fits beside "small" but came later does not pass the one that has to wait
    assert begun(machine.step()) == ["large"]
    machine.encode(["large"])
    assert begun(machine.step()) == ["other"]


def test_a_picture_of_two_sequences_is_encoded_once() -> None:
    machine = Machine(EngineLimits(kv_block=4), blocks=50)
    machine.add(sequence("a", 1, 3, (("cat", 4),)))
    machine.add(sequence("b", 2, 3, (("cat", 4), ("dog", 4))))
    plan = machine.step()
    assert (begun(plan), plan.images_reused, plan.chunks) == (["cat", "dog"], 1, [])
    machine.encode(["cat"])
    assert names(machine.step()) == ["a"]
    machine.encode(["dog"])
    assert names(machine.step()) == ["a", "b"]


def test_a_step_goes_on_while_pictures_are_encoded() -> None:
    machine = Machine(EngineLimits(max_running=4, kv_block=4), blocks=50)
    machine.add(sequence("text", 2, 9))
    machine.add(sequence("shown", 2, 9, (("cat", 4),)))
    assert names(machine.step()) == ["text"]
    machine.add(sequence("later", 2, 9))
    assert names(machine.step()) == ["text", "later"]
    machine.encode(["cat"])
    assert names(machine.step()) == ["text", "later", "shown"]


def test_a_picture_that_was_given_up_is_encoded_anew_for_the_next() -> None:
    machine = Machine(EngineLimits(kv_block=4), blocks=50)
    machine.add(sequence("a", 1, 3, (("cat", 4),)))
    machine.step()
    machine.cancel(machine.live[0])
    machine.give_up("cat")
    machine.add(sequence("b", 1, 3, (("cat", 4),)))
    assert begun(machine.step()) == ["cat"]


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


def test_a_known_beginning_is_not_computed_again() -> None:
    machine = Machine(EngineLimits(max_running=2, token_budget=64, kv_block=4), blocks=50)
    machine.add(sequence("a", 10, 2, (("cat", 8),), own=False))
    look(machine)
    machine.add(sequence("b", 10, 2, (("cat", 8),), own=False))
    plan = machine.step()
    # 1 + 8 + 1 + 10 tokens: the last block is computed again for its logits
    assert plan.prefix_tokens == 16
    assert [(c.sequence.task_id, c.start, c.end) for c in plan.chunks][1:] == [("b", 16, 20)]
    assert plan.images == []


def test_equal_prompts_that_come_together_are_computed_once() -> None:
    machine = Machine(EngineLimits(max_running=4, token_budget=12, kv_block=4), blocks=50)
    for name in ("a", "b", "c"):
        machine.add(sequence(name, 10, 2, (("cat", 8),), own=False))
    machine.add(sequence("other", 2, 9))
    plan = machine.step()
    assert (begun(plan), names(plan)) == (["cat"], ["other"])
    machine.encode(["cat"])
    plans = [machine.step() for _ in range(3)]
    assert [names(plan) for plan in plans] == [
        ["other", "a"],
        ["other", "a"],
        ["a", "other", "b", "c"],
    ]
    assert [plan.prefix_tokens for plan in plans] == [0, 0, 2 * 16]
    assert sum(len(plan.images) for plan in plans) == 0


def test_who_follows_a_sequence_that_is_cancelled_computes_for_itself() -> None:
    machine = Machine(EngineLimits(max_running=4, token_budget=8, kv_block=4), blocks=50)
    for name in ("a", "b"):
        machine.add(sequence(name, 20, 2, own=False))
    machine.step()
    machine.cancel(machine.live[0])
    plan = machine.step()
    assert [(c.sequence.task_id, c.start) for c in plan.chunks] == [("b", 8)]


def test_equal_prompts_about_different_pictures_share_only_what_is_before_them() -> None:
    machine = Machine(EngineLimits(max_running=3, token_budget=64, kv_block=1), blocks=90)
    near = [("a" * 64, 8), ("a" * 63 + "b", 8), ("b" + "a" * 63, 8)]
    for at, shown in enumerate(near):
        machine.add(sequence(f"s{at}", 10, 20, (shown,), own=False))
        plan = look(machine)
        assert plan.prefix_tokens == (1 if at else 0)
        assert begun(plan) == [shown[0]]


def test_the_same_picture_at_another_place_is_not_the_same_beginning() -> None:
    machine = Machine(EngineLimits(max_running=3, token_budget=64, kv_block=4), blocks=90)
    machine.add(sequence("a", 6, 20, (("cat", 8), ("dog", 8)), own=False))
    look(machine)
    machine.add(sequence("b", 6, 20, (("dog", 8), ("cat", 8)), own=False))
    assert machine.step().prefix_tokens == 0


def test_when_no_empty_block_is_left_the_end_of_the_longest_idle_chain_is_taken() -> None:
    machine = Machine(EngineLimits(max_running=1, token_budget=64, kv_block=4), blocks=6)
    for name in ("a", "b", "c"):
        machine.add(sequence(name, 8, 1))
        while machine.live:
            machine.step()
    assert machine.pool.idle > 0
    again = {}
    for name in ("c", "a"):
        machine.add(sequence(name, 8, 1))
        again[name] = machine.step().prefix_tokens
    # of "a", the one longest idle, only the end is gone
    assert again == {"c": 8, "a": 4}


def test_the_urgent_start_first_then_those_whose_deadline_is_near() -> None:
    machine = Machine(EngineLimits(max_running=1, token_budget=64, kv_block=4), blocks=50)
    machine.add(sequence("running", 2, 3))
    machine.step()
    machine.add(sequence("whenever", 2, 1, urgency=2))
    machine.add(sequence("normal", 2, 1, urgency=1))
    machine.add(sequence("soon", 2, 1, urgency=1, deadline=9.0))
    machine.add(sequence("urgent", 2, 1))
    while machine.live:
        machine.step()
    assert machine.finished == ["running", "urgent", "soon", "normal", "whenever"]


def test_a_steady_stream_of_urgent_ones_does_not_starve_the_others() -> None:
    machine = Machine(EngineLimits(max_running=1, token_budget=64, kv_block=4), blocks=50)
    machine.add(sequence("first", 2, 1))
    machine.add(sequence("patient", 2, 1, urgency=2))
    for at in range(3 * OVERTAKEN_LIMIT):
        machine.add(sequence(f"urgent{at}", 2, 1))
        machine.step()
    assert machine.finished.index(TaskId("patient")) == OVERTAKEN_LIMIT + 1


def test_the_least_urgent_makes_room_though_it_came_first() -> None:
    machine = Machine(EngineLimits(max_running=2, token_budget=30, kv_block=2), blocks=10)
    machine.add(sequence("batch", 3, 12, urgency=2))
    machine.step()
    machine.add(sequence("vip", 3, 12))
    while len(machine.finished) < 2:
        machine.step()
    assert machine.finished == ["vip", "batch"]


def test_what_is_past_its_deadline_is_named() -> None:
    machine = Machine(EngineLimits(kv_block=4), blocks=50)
    late, later = sequence("late", 2, 9, deadline=1.0), sequence("later", 2, 9, deadline=2.0)
    machine.add(late)
    machine.add(later)
    assert machine.scheduler.overdue(0.5) == []
    assert machine.scheduler.overdue(1.5) == [late]


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
