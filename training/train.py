"""Trains the demo model: ``python -m training.train --until 06:00``. Stop and resume at will."""

from __future__ import annotations

import argparse
import math
import multiprocessing
import signal
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import DataLoader

from training import dense, language, muon, shape, speed
from training.data import PATCH, Batch, Maker, Stream


@dataclass(slots=True)
class Plan:
    """Wall-clock schedule. ``progress`` runs from 0 to 1, ``course`` from ``enter`` to 1."""

    done: float  # seconds trained in earlier runs
    total: float  # seconds of training in all
    enter: float = 0.0
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Seconds trained so far."""
        return self.done + time.monotonic() - self.started

    @property
    def progress(self) -> float:
        """Share of the time that has passed."""
        return min(1.0, self.seconds / self.total)

    @property
    def course(self) -> float:
        """How far the pictures are on their way from easy to hard."""
        return self.enter + (1 - self.enter) * self.progress


def rate_factor(progress: float, steps: int, decay: float) -> float:
    """Warm up for 40 steps, hold, then fall linearly to nothing over the last ``decay``."""
    return min(1.0, (steps + 1) / 40) * min(1.0, (1 - progress) / decay)


class Trainer:
    """The model, its throw-away heads, optimizers and running averages."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(options.seed)
        self.model = shape.build().to(self.device)
        shape.freeze(self.model)
        shapes = self.model.config
        self.heads = dense.DenseHeads(shapes.text.hidden_size, shapes.vision.hidden_size)
        self.heads.to(self.device)
        self.patches: list[Tensor] = []
        self.model.visual.post_layernorm.register_forward_hook(
            lambda _module, _inputs, output: self.patches.append(output)
        )
        speed.prepare(self.model)
        groups, rest = muon.split(self.model, self.heads)
        self.muon = muon.Muon(groups, lr=options.lr)
        self.adamw = torch.optim.AdamW(
            rest, lr=options.adam_lr, betas=(0.9, 0.98), weight_decay=0.0, fused=True
        )
        self.average = {k: v.detach().clone() for k, v in self.model.named_parameters()}
        self.steps, self.pictures, self.seconds = 0, 0, 0.0
        self.meters: dict[str, list[float]] = defaultdict(list)

    def start(self) -> None:
        """Whiten the patch embedding on a sample of pictures."""
        batches = [Maker(Random(s), 128).make(0.5) for s in range(4)]
        patches = torch.cat([shape.cut(batch.pictures) for batch in batches])
        shape.whiten(self.model, patches.to(self.device))
        self.average = {k: v.detach().clone() for k, v in self.model.named_parameters()}

    def start_from(self, folder: Path) -> None:
        """Take the weights of a checkpoint folder; heads and optimizers stay fresh."""
        weights = load_file(str(folder / "model.safetensors"))
        self.model.load_state_dict({name: value.float() for name, value in weights.items()})
        self.average = {k: v.detach().clone() for k, v in self.model.named_parameters()}

    def step(self, batch: Batch, progress: float) -> None:
        """Learn from one batch."""
        batch = to_device(batch, self.device)
        speak = min(1.0, progress / self.options.ramp + 0.02)
        look = 1.0 if progress < 0.6 else max(0.25, 1 - (progress - 0.6) * 2.5)
        for optimizer, rate in ((self.muon, self.options.lr), (self.adamw, self.options.adam_lr)):
            for group in optimizer.param_groups:
                group["lr"] = rate * rate_factor(progress, self.steps, self.options.decay)
        with torch.autocast(self.device.type, torch.bfloat16):
            loss = self._loss(batch, speak, look)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.adamw.param_groups[0]["params"], 1.0)
        for optimizer in (self.muon, self.adamw):
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.steps += 1
        self.pictures += len(batch.pictures)
        if self.steps % 8 == 0:
            self._track(min(0.98, 1 - 4 / (self.steps / 8 + 4)))

    def _loss(self, batch: Batch, speak: float, look: float) -> Tensor:
        count, height, width, _ = batch.pictures.shape
        grids = [(height // PATCH, width // PATCH)] * count
        visual = self.model.visual(shape.cut(batch.pictures), grids)
        by_picture = visual.view(count, -1, visual.shape[-1])
        found = self.heads(by_picture, self.patches.pop(), batch.labels)
        spoken = by_picture[batch.spoken].flatten(0, 1)
        loss, look_loss, right = language.answers(self.model, batch, spoken)
        for name, (_, accuracy) in found.items():
            self.meters[name].append(float(accuracy))
        for skill, good in zip(batch.skills, right.tolist(), strict=True):
            self.meters[f"{skill}*"].append(float(good))
        self.meters["lm"].append(float(loss.detach()))
        self.meters["look"].append(float(look_loss.detach()))
        total: Tensor = speak * (3.0 * loss + look_loss) + look * dense.total(found)
        return total

    @torch.no_grad()
    def _track(self, keep: float) -> None:
        for name, parameter in self.model.named_parameters():
            self.average[name].lerp_(parameter, 1 - keep)

    def report(self) -> str:
        """Return the means since the last report."""
        parts = []
        for name, values in sorted(self.meters.items()):
            kept = [v for v in values if not math.isnan(v)]
            if kept:
                parts.append(f"{name} {sum(kept) / len(kept):.3f}")
        self.meters.clear()
        return " ".join(parts)

    def save(self, path: Path, seconds: float) -> None:
        """Write everything needed to go on."""
        state: dict[str, Any] = {
            "model": self.model.state_dict(), "heads": self.heads.state_dict(),
            "muon": self.muon.state_dict(), "adamw": self.adamw.state_dict(),
            "average": self.average, "steps": self.steps, "pictures": self.pictures,
            "seconds": seconds,
        }  # fmt: skip
        torch.save(state, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)

    def load(self, path: Path) -> None:
        """Go on from a saved state."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.heads.load_state_dict(state["heads"])
        self.muon.load_state_dict(state["muon"])
        self.adamw.load_state_dict(state["adamw"])
        self.average = state["average"]
        self.steps, self.pictures = state["steps"], state["pictures"]
        self.seconds = state["seconds"]


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move a batch's tensors."""
    return Batch(
        batch.pictures.to(device), batch.ids.to(device), batch.targets.to(device),
        batch.positions.to(device), batch.skills,
        {k: v.to(device) for k, v in batch.labels.items()}, batch.look.to(device),
        batch.spoken.to(device),
    )  # fmt: skip


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/demo"))
    parser.add_argument(
        "--from",
        dest="from_folder",
        type=Path,
        help="checkpoint folder whose weights to start from",
    )
    parser.add_argument("--until", help="HH:MM in UTC at which training ends")
    parser.add_argument("--minutes", type=float, help="minutes of training in all")
    parser.add_argument("--batch", type=int, default=24, help="pictures of 112 x 112 a step")
    parser.add_argument("--lr", type=float, default=0.006, help="of Muon")
    parser.add_argument("--adam-lr", type=float, default=0.002)
    parser.add_argument("--decay", type=float, default=0.55, help="share of the time lr falls")
    parser.add_argument("--ramp", type=float, default=0.05, help="share until full language loss")
    parser.add_argument(
        "--enter", type=float, default=0.0,
        help="where the course of pictures, from easy (0) to hard (1), begins",
    )  # fmt: skip
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--resume", action="store_true")
    return parser.parse_args()


def budget(options: argparse.Namespace, done: float) -> float:
    """Return the seconds of training in all."""
    if options.minutes:
        return float(options.minutes) * 60
    now = datetime.now(UTC)
    hour, minute = map(int, options.until.split(":"))
    end = now.replace(hour=hour, minute=minute, second=0)
    if end < now:
        end += timedelta(days=1)
    return done + (end - now).total_seconds()


def main() -> None:
    """Train until the time is over."""
    options = arguments()
    options.run.mkdir(parents=True, exist_ok=True)
    checkpoint = options.run / "state.pt"
    trainer = Trainer(options)
    if options.resume and checkpoint.exists():
        trainer.load(checkpoint)
    elif options.from_folder:
        trainer.start_from(options.from_folder)
    else:
        trainer.start()
    plan = Plan(trainer.seconds, budget(options, trainer.seconds), options.enter)
    progress: Synchronized[float] = multiprocessing.Value("d", plan.course)
    seed = options.seed + 1000 * trainer.steps
    loader = DataLoader(
        Stream(seed, options.batch, progress), batch_size=None, num_workers=options.workers,
        prefetch_factor=6 if options.workers else None,
    )  # fmt: skip
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    last_report = last_save = plan.seconds
    last_pictures, waited = trainer.pictures, 0.0
    asked = time.monotonic()
    for batch in loader:
        waited += time.monotonic() - asked
        progress.value = plan.course
        trainer.step(batch, plan.progress)
        now = plan.seconds
        if now - last_report > 20:
            rate = (trainer.pictures - last_pictures) / (now - last_report)
            left = (plan.total - now) / 60
            print(
                f"{now / 60:6.1f} min, {left:.1f} left, step {trainer.steps}, {rate:.0f} img/s, "
                f"waited {waited / (now - last_report):.0%} | {trainer.report()}",
                flush=True,
            )
            last_report, last_pictures, waited = now, trainer.pictures, 0.0
        ending = stopping.is_set() or plan.progress >= 1
        if now - last_save > 180 or ending:
            trainer.save(checkpoint, now)
            last_save = now
        if ending:
            break
        asked = time.monotonic()


if __name__ == "__main__":
    main()
