"""The engine of a model on this machine, ready to be stepped. The worker's one way to torch."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import structlog
import torch

from forebay.config import Settings
from forebay.core.image_grid import MAX_ASPECT_RATIO
from forebay.engine.device import device_named
from forebay.engine.engine import Engine
from forebay.engine.limits import EngineLimits
from forebay.models.quantization import Quantization, choice_for
from forebay.ops.worker_metrics import WorkerMetrics
from forebay.ops.worker_status import peak_memory_bytes
from forebay.worker.allocator import keep_freed_memory
from forebay.worker.engine_thread import EngineThread

log = structlog.get_logger("forebay.worker")

CPU_TOKENS, GPU_TOKENS = 512, 2048
CPU_VISION, GPU_VISION = 1024, 2048
PIXELS_A_TOKEN = 28
"""Side of the square that a visual token covers, in every checkpoint of the family."""


def load(settings: Settings, metrics: WorkerMetrics | None = None) -> tuple[EngineThread, int]:
    """Return the engine, warm, and how many tokens it may be given; ``metrics`` hears of its steps.

    Raises:
        CheckpointError: the model's folder cannot be served.
        QuantizationError: the quantization that is set does not run on this machine.
        EngineMemoryError: the model and one longest request do not fit the device.
    """
    began = time.monotonic()
    # On a thread that ends: the products' threads belong to the one that began them, and once there
    # are more of them than processors, every product ends in a sleep instead of a short spin.
    with ThreadPoolExecutor(1, "load") as loader:
        engine = loader.submit(load_engine, settings).result()
    log.info(
        "model_warm",
        model=settings.served_name,
        after_s=round(time.monotonic() - began, 1),
        free_tokens=engine.free_tokens,
        memory=str(engine.memory),
        peak_mb=peak_memory_bytes() // 2**20,
    )
    metrics = metrics or WorkerMetrics()
    metrics.slots.set(settings.max_running)
    metrics.see_blocks(0, engine.kv_blocks)
    thread = EngineThread(engine, max_running=settings.max_running, on_step=metrics.see_step)
    return thread, engine.free_tokens


def placed(settings: Settings) -> tuple[str, str]:
    """Return the engine's device, and how the model's matrices are kept there."""
    device = device_named(settings.device)
    choice = choice_for(settings.model_folder, Quantization(settings.quantization), device)
    return device.type, choice.quantization.value


def load_engine(settings: Settings) -> Engine:
    """Load the checkpoint and run a picture through it, so that the first request is not slow.

    Raises:
        CheckpointError: the model's folder cannot be served.
        QuantizationError: the quantization that is set does not run on this machine.
        EngineMemoryError: the model and one longest request do not fit the device.
    """
    keep_freed_memory()
    choice = choice_for(
        settings.model_folder, Quantization(settings.quantization), device_named(settings.device)
    )
    log.info("quantization", kept_as=choice.quantization.value, reason=choice.reason)
    engine = Engine.from_folder(
        settings.model_folder,
        limits=engine_limits(settings),
        threads=settings.engine_threads or None,
        device=settings.device,
        quantization=choice.quantization,
    )
    engine.warm_up()
    return engine


def reserved_gpu_bytes() -> int:
    """Return the bytes that this process's allocator holds of its GPU; 0 without one."""
    return torch.cuda.memory_reserved()


def token_budget_for(settings: Settings) -> int:
    """Return the tokens of a step that suit the engine's device.

    A CPU gains nothing from more than about one picture a step, and the first answers wait for all
    of the step's pictures; a GPU is only filled by many.
    """
    return max(CPU_TOKENS if on_cpu(settings) else GPU_TOKENS, settings.max_running)


def on_cpu(settings: Settings) -> bool:
    """Whether the engine of these settings runs on the CPU."""
    return device_named(settings.device).type == "cpu"


def engine_limits(settings: Settings) -> EngineLimits:
    """Return the engine's budgets.

    Both sides of a stored picture are rounded to whole tokens; one thinner than a token is widened.
    """
    side = round(settings.image_side / PIXELS_A_TOKEN) + 1
    return EngineLimits(
        max_running=settings.max_running,
        token_budget=settings.token_budget or token_budget_for(settings),
        vision_budget=CPU_VISION if on_cpu(settings) else GPU_VISION,
        memory_share=settings.memory_share,
        context_tokens=settings.context_tokens,
        largest_image=max(side * side, MAX_ASPECT_RATIO),
    )
