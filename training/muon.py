"""Muon: momentum whose matrix steps are orthogonalised (Jordan and others, 2024)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


def orthogonalise(steps: Tensor) -> Tensor:
    """Return nearly orthogonal matrices of a stack [N, rows, columns], by Newton-Schulz."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = steps.bfloat16()
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    found: Tensor = (x.mT if tall else x).to(steps.dtype)
    return found


class Muon(Optimizer):
    """For hidden matrices. A matrix made of several stacked ones is cut first (``parts``)."""

    def __init__(
        self, params: Iterable[dict[str, object]], lr: float, momentum: float = 0.95,
        weight_decay: float = 0.02,
    ) -> None:  # fmt: skip
        super().__init__(params, {
            "lr": lr, "momentum": momentum, "weight_decay": weight_decay, "parts": 1,
        })  # fmt: skip

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]  # noqa: ARG002
        """Take one step; matrices of one shape are orthogonalised together."""
        for group in self.param_groups:
            by_shape: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                buffer: Tensor = state["momentum"]
                buffer.lerp_(parameter.grad, 1 - group["momentum"])
                step = parameter.grad.lerp(buffer, group["momentum"]).flatten(1)
                matrix = parameter.view(step.shape)
                for piece, part in zip(
                    matrix.chunk(group["parts"]), step.chunk(group["parts"]), strict=True
                ):
                    by_shape[(part.shape[0], part.shape[1])].append((piece, part))
            for (rows, columns), pieces in by_shape.items():
                turned = orthogonalise(torch.stack([part for _, part in pieces]))
                size = group["lr"] * 0.2 * max(rows, columns) ** 0.5
                for (piece, _), direction in zip(pieces, turned, strict=True):
                    piece.mul_(1 - group["lr"] * group["weight_decay"])
                    piece.add_(direction, alpha=-size)


def split(model: nn.Module, heads: nn.Module) -> tuple[list[dict[str, object]], list[nn.Parameter]]:
    """Return Muon's groups (hidden matrices) and the parameters that are left for AdamW."""
    parts = {"qkv": 3, "gate_up_proj": 2}
    groups: dict[int, list[nn.Parameter]] = defaultdict(list)
    rest = list(heads.parameters())
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if parameter.dim() >= 2 and "embed" not in name and "lm_head" not in name:
            groups[next((n for key, n in parts.items() if key in name), 1)].append(parameter)
        else:
            rest.append(parameter)
    return [{"params": group, "parts": n} for n, group in groups.items()], rest
