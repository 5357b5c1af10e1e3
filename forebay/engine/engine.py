"""The engine: requests in, events out, one step at a time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from forebay.core.errors import (
    InvalidImageError,
    InvalidRequestError,
    PromptTooLongError,
    TaskExpiredError,
)
from forebay.core.events import EngineEvent, Failed, Finished, StepStats
from forebay.core.lifecycle import State
from forebay.core.request import InferenceRequest, TaskId, Terms
from forebay.engine.answers import Answers
from forebay.engine.device import default_dtype, device_named, model_dtype
from forebay.engine.encoder_cache import EncoderCache
from forebay.engine.gpu.execution import GpuExecution, default_ops
from forebay.engine.kv_blocks import BlockPool
from forebay.engine.kv_cache import KVCache
from forebay.engine.layer_pulse import LayerPulse
from forebay.engine.limits import EngineLimits
from forebay.engine.memory import MemorySplit
from forebay.engine.memory_profile import (
    CudaMemory,
    DeviceMemory,
    gpu_split,
    host_split,
    largest_requests,
    measured_use,
    picture_bytes,
)
from forebay.engine.pictures import Pictures, PicturesBeside, PicturesInStep
from forebay.engine.prepared import PreparedRequest, Preparer
from forebay.engine.runner import Runner
from forebay.engine.scheduler import Plan, Scheduler
from forebay.engine.sequence import Chunk, Sequence
from forebay.engine.warm_up import warm_up_request
from forebay.models.glm4v.config import Glm4vConfig
from forebay.models.glm4v.model import Glm4vModel
from forebay.models.loader import load_model
from forebay.models.packed_layers import pack_layers
from forebay.models.quantization import Quantization, choice_for
from forebay.models.stop_ids import stop_ids_of


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step brought: events in the order of the sequences, and what it did."""

    events: list[EngineEvent]
    stats: StepStats


class Engine:
    """Continuous batching over one model.

    One thread calls ``add``, ``abort``, ``step`` and reads the properties; :meth:`prepare` may be
    called from any thread. A step that raises leaves the engine unusable.
    """

    def __init__(
        self,
        model: Glm4vModel,
        preparer: Preparer,
        stop_ids: frozenset[int],
        limits: EngineLimits,
        device: torch.device,
        memory: MemorySplit | None = None,
    ) -> None:
        blocks = kv_blocks(limits)
        self.memory = memory
        self._preparer = preparer
        self._limits = limits
        self._pool = BlockPool(blocks, limits.kv_block)
        encoder: EncoderCache[Tensor] = EncoderCache(limits.encoder_cache_bytes)
        cache = KVCache(model.config.text, blocks, limits.kv_block, model_dtype(model), device)
        gpu = None
        if device.type == "cuda":
            gpu = GpuExecution.build(
                model,
                cache,
                default_ops(device),
                most_rows=limits.max_running,
                longest=preparer.longest,
            )
        self._runner = Runner(model, cache, encoder, device, gpu)
        self._pictures: Pictures = (
            PicturesBeside(self._runner.encode, torch.get_num_threads())
            if device.type == "cpu"
            else PicturesInStep(self._runner.encode)
        )
        self._token_work = model.token_work
        self._pulse = LayerPulse(model)
        self._scheduler = Scheduler(limits, self._pool, encoder)
        self._answers = Answers(preparer.tokenizer, stop_ids)

    @classmethod
    def from_folder(
        cls,
        folder: Path,
        *,
        limits: EngineLimits | None = None,
        threads: int | None = None,
        device: str = "auto",
        dtype: torch.dtype | None = None,
        quantization: Quantization = Quantization.AUTO,
    ) -> Engine:
        """Load a checkpoint folder.

        Args:
            folder: a Hugging Face checkpoint folder.
            limits: budgets; the defaults where None.
            threads: CPU threads of the process's matrix products; torch's own choice where None.
            device: "cpu", "cuda", ... or "auto": CUDA where there is one.
            dtype: of weights and KV cache; None: the device's own, see :func:`default_dtype`.
            quantization: how the matrices are kept; ``AUTO``: as suits machine and checkpoint.

        Raises:
            CheckpointError: naming the file at fault.
            QuantizationError: the quantization that was asked for does not run on this machine.
            EngineMemoryError: one longest request would not fit beside the model.
        """
        if threads is not None:
            torch.set_num_threads(threads)
        limits = limits or EngineLimits()
        place = device_named(device)
        memory = CudaMemory(place) if place.type == "cuda" else None
        free = 0 if memory is None else memory.free()
        kept = choice_for(folder, quantization, place).quantization
        config = Glm4vConfig.from_folder(folder)
        ends = stop_ids_of(folder, config.text)
        longest = config.text.max_position_embeddings
        preparer = Preparer.from_folder(folder, config, longest, ends)
        with ThreadPoolExecutor(1, "vocabulary") as beside:
            # where it cannot be read, those who ask with a constraint are told
            beside.submit(preparer.grammars.load)
            model = load_model(
                folder, dtype=dtype or default_dtype(place), device=place, quantization=kept
            )
        if place.type == "cpu":
            pack_layers(model)
        return cls.sized(model, preparer, ends, limits, place, memory, free)

    @classmethod
    def sized(
        cls,
        model: Glm4vModel,
        preparer: Preparer,
        stop_ids: frozenset[int],
        limits: EngineLimits,
        device: torch.device,
        memory: DeviceMemory | None,
        free: int,
    ) -> Engine:
        """Build an engine whose KV cache takes what the device can spare.

        Args:
            model: on the device.
            preparer: for the model's whole context; it is cut down to what the cache holds.
            stop_ids: tokens that end an answer.
            limits: budgets; with ``kv_tokens`` nothing is measured.
            device: where the model is.
            memory: the device's, to be measured; None: the host's, to be estimated.
            free: bytes of ``memory`` that were free before the model was loaded.

        Raises:
            EngineMemoryError: one longest request would not fit.
        """
        dtype, split = model_dtype(model), None
        if limits.kv_tokens is None:
            if memory is None:
                split = host_split(model.config, limits, dtype)
            else:
                pictures = picture_bytes(model.config, limits, dtype)
                use = measured_use(
                    memory,
                    free,
                    lambda: cls._at_its_largest(model, preparer, stop_ids, limits, device),
                    pictures,
                )
                split = gpu_split(model.config, limits, dtype, use)
            limits = replace(limits, kv_tokens=split.kv_tokens)
        blocks = kv_blocks(limits)
        longest = min(blocks * limits.kv_block, preparer.longest)
        return cls(model, replace(preparer, longest=longest), stop_ids, limits, device, split)

    @classmethod
    def _at_its_largest(
        cls,
        model: Glm4vModel,
        preparer: Preparer,
        stop_ids: frozenset[int],
        limits: EngineLimits,
        device: torch.device,
    ) -> Engine:
        """Return an engine that has run the largest step its limits admit."""
        requests = largest_requests(preparer, limits)
        tokens = sum(len(one.token_ids) + one.max_tokens + 2 * limits.kv_block for one in requests)
        engine = cls(model, preparer, stop_ids, replace(limits, kv_tokens=tokens), device)
        for request in requests:
            engine.add(request)
        while engine.has_work:
            engine.step()
        return engine

    def prepare(
        self,
        task_id: TaskId,
        request: InferenceRequest,
        images: Mapping[str, bytes],
        terms: Terms | None = None,
    ) -> PreparedRequest:
        """Do the slow work before the device; see :meth:`Preparer.prepare`. Thread-safe."""
        prepared = self._preparer.prepare(task_id, request, images, terms or Terms())
        most = max(self._limits.vision_budget, self._limits.largest_image)
        for span in prepared.spans:
            if span.tokens > most:
                raise InvalidImageError(
                    f"picture {span.sha256[:12]} takes {span.tokens} visual tokens; memory is "
                    f"kept for pictures of at most {most}: send a smaller one"
                )
        return prepared

    def add(self, prepared: PreparedRequest) -> None:
        """Take a prepared request among the waiting.

        Raises:
            InvalidRequestError: a task with this id is here.
            PromptTooLongError: it was prepared for an engine with a larger KV cache.
        """
        if prepared.task_id in self._answers:
            raise InvalidRequestError(f"task {prepared.task_id} is in the engine already")
        names = self._answers.open(prepared)
        try:
            for name in names:
                self._scheduler.add(_sequence(name, prepared))
        except ValueError as error:
            self.abort(prepared.task_id)
            raise PromptTooLongError(str(error)) from error

    def abort(self, task_id: TaskId) -> bool:
        """Drop a task, without an event; False when it is not here."""
        names = self._answers.drop(task_id)
        for name in names:
            self._scheduler.remove(name)
        return len(names) > 0

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return len(self._answers) > 0

    @property
    def running_ids(self) -> list[TaskId]:
        """Sequences that run now, the oldest first."""
        return [sequence.task_id for sequence in self._scheduler.running]

    @property
    def free_tokens(self) -> int:
        """Tokens of KV cache that no sequence here may come to need."""
        capacity = self._pool.total * self._pool.block_size
        return max(0, capacity - self._scheduler.promised_tokens)

    @property
    def cache_bytes(self) -> int:
        """Bytes of the KV cache."""
        return self._runner.cache.bytes

    @property
    def kv_blocks(self) -> int:
        """Blocks of the KV cache."""
        return self._pool.total

    @property
    def free_slots(self) -> int:
        """Sequences that could be added and run at once."""
        return max(0, self._limits.max_running - len(self._answers))

    @property
    def longest(self) -> int:
        """Tokens that a prompt and its answer together may have."""
        return self._preparer.longest

    @torch.inference_mode()
    def step(self) -> StepResult:
        """Schedule, run, post-process: every running sequence advances.

        Without work this returns at once, with no events.
        """
        began, now = time.perf_counter(), time.monotonic()
        expired = self._expire(now)
        beside_s = self._collect_pictures()
        plan = self._scheduler.schedule()
        scheduled = time.perf_counter()
        images = {
            span.sha256: self._answers.request(owner.task_id).images[span.sha256]
            for owner, span in plan.images
        }
        # more rows would decode in hardly more time: a picture now makes the next steps fuller
        few = plan.decode_tokens < self._limits.max_running // 2
        work = (plan.decode_tokens + plan.prefill_tokens) * self._token_work
        self._pictures.start(images, work=work, lends=few)
        encoded = time.perf_counter()
        sampling, logits = self._forward(plan)
        decoded = time.perf_counter()
        begun = self._begun_phases(plan, sampling, now)
        events = [*expired, *begun, *self._post_process(plan, sampling, logits)]
        ended = time.perf_counter()
        stats = StepStats(
            running=len(self._scheduler.running),
            waiting=len(self._scheduler.waiting),
            prefill_tokens=plan.prefill_tokens,
            prefix_tokens=plan.prefix_tokens,
            decode_tokens=plan.decode_tokens,
            images_encoded=len(plan.images),
            images_reused=plan.images_reused,
            preempted=plan.preempted,
            kv_blocks_used=self._pool.used,
            kv_blocks_total=self._pool.total,
            schedule_s=scheduled - began,
            vision_s=encoded - scheduled,
            vision_beside_s=beside_s,
            decoder_s=decoded - encoded,
            sample_s=ended - decoded,
            step_s=ended - began,
        )
        return StepResult(events, stats)

    def close(self) -> None:
        """Begin no picture any more: it is not to be stepped again. From any thread."""
        self._pictures.close()

    @property
    def pulse(self) -> int:
        """Layers run so far: on a CPU a step may take long, and each layer shows that it moves.

        On a GPU, whose steps are short, it may stay as it is. Read from any thread.
        """
        return self._pulse.count

    def check_integrity(self) -> None:
        """Raise IntegrityError unless the engine's books add up. For tests and idle moments."""
        self._scheduler.check()

    def warm_up(self) -> float:
        """Ask the model for one token about a real picture; return the seconds that it took.

        Raises:
            RuntimeError: there are sequences in the engine, or the model gave no token.
        """
        if self.has_work:
            raise RuntimeError("warm_up is for an engine without sequences")
        began = time.perf_counter()
        task_id = TaskId("warm-up")
        request, images = warm_up_request()
        self.add(self.prepare(task_id, request, images))
        try:
            events = [event for _ in range(self.longest) for event in self._step_if_work()]
        finally:
            self.abort(task_id)
        if not any(isinstance(event, Finished) for event in events):
            raise RuntimeError("the model gave no token for the warm-up picture")
        return time.perf_counter() - began

    def _step_if_work(self) -> list[EngineEvent]:
        return self.step().events if self.has_work else []

    def _expire(self, now: float) -> list[EngineEvent]:
        """End the tasks whose deadline has passed."""
        overdue = {
            self._answers.request(sequence.task_id).task_id: sequence.generated
            for sequence in self._scheduler.overdue(now)
        }
        events: list[EngineEvent] = []
        for task_id, generated in overdue.items():
            self.abort(task_id)
            error = TaskExpiredError(f"the deadline passed after {generated} tokens")
            events.append(Failed(task_id, error.code, error.message))
        return events

    def _collect_pictures(self) -> float:
        """Keep the pictures that are encoded by now; return the seconds spent beside the steps."""
        encoded = self._pictures.collect(self._runner.encoder.pinned)
        for sha256, tokens in encoded.tokens.items():
            if tokens is not None:
                self._runner.keep(sha256, tokens)
            self._scheduler.encoded(sha256)
        return encoded.seconds

    def _forward(self, plan: Plan) -> tuple[list[Chunk], Tensor]:
        if not plan.chunks:
            return [], torch.empty(0)
        ids = (chunk.sequence.task_id for chunk in plan.chunks)
        requests = {task_id: self._answers.request(task_id) for task_id in ids}
        return self._runner.forward(plan.chunks, requests)

    def _begun_phases(self, plan: Plan, sampling: list[Chunk], at: float) -> list[EngineEvent]:
        """Say which tasks have come further by a step that began ``at``."""
        prompts = (each.sequence for each in plan.chunks if not each.sequence.generated)
        first_tokens = (each.sequence for each in sampling if not each.sequence.generated)
        return [
            *self._answers.begin(State.ENCODING, (one.task_id for one, _ in plan.images), at),
            *self._answers.begin(State.PREFILL, (one.task_id for one in prompts), at),
            *self._answers.begin(
                State.DECODE, (one.task_id for one in first_tokens), time.monotonic()
            ),
        ]

    def _post_process(self, plan: Plan, sampling: list[Chunk], logits: Tensor) -> list[EngineEvent]:
        for chunk in plan.chunks:
            self._scheduler.advance(chunk)
        progress = self._answers.extend([chunk.sequence for chunk in sampling], logits)
        for name in progress.ended:
            self._scheduler.remove(name)
        return progress.events


def _sequence(name: TaskId, prepared: PreparedRequest) -> Sequence:
    return Sequence(
        name,
        list(prepared.token_ids),
        prepared.spans,
        prepared.max_tokens,
        urgency=int(prepared.terms.priority),
        deadline=prepared.terms.deadline,
    )


def kv_blocks(limits: EngineLimits) -> int:
    """Return how many KV blocks an engine has under limits that say their tokens."""
    if limits.kv_tokens is None:
        raise ValueError("kv_tokens is not set: build the engine with Engine.sized")
    return max(1, limits.kv_tokens // limits.kv_block)
