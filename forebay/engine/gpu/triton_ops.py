"""The operations of ``forebay.engine.gpu.ops.Ops`` as Triton kernels."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from forebay.engine.gpu.ops import BlockTables


class TritonOps:
    """One kernel each, two for attention. ``processors``: multiprocessors of the device."""

    capturable = True

    def __init__(self, processors: int) -> None:
        from forebay.engine.gpu import kernels  # noqa: PLC0415 (Triton is not everywhere)

        self._kernels: Any = kernels
        self._processors = processors
        self._streamed: set[tuple[int, int]] = set()

    def product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """See :class:`Ops`; one row may go to a kernel that only streams the weights."""
        if len(x) > 1 or tuple(weight.shape) not in self._streamed:
            return F.linear(x, weight, bias)
        return self.streamed(x, weight, bias)

    def streamed(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the product of one row [1, in] through our own kernel."""
        rows, columns = weight.shape
        out = x.new_empty(1, rows)
        tile_rows = 8
        self._kernels.one_row_product[(-(-rows // tile_rows),)](
            x,
            weight,
            weight if bias is None else bias,
            out,
            COLUMNS=columns,
            ROWS=rows,
            BIAS=bias is not None,
            TILE_ROWS=tile_rows,
            TILE_COLUMNS=min(512, _padded(columns)),
            num_warps=4,
            num_stages=4,
        )
        return out

    def _streamed_bare(self, x: Tensor, weight: Tensor) -> Tensor:
        return self.streamed(x, weight, None)

    def stream_where_quicker(
        self, weights: Sequence[Tensor], stream: torch.cuda.Stream
    ) -> dict[tuple[int, int], float]:
        """Measure both ways of multiplying one row, and take the quicker one for each shape.

        Args:
            weights: matrices [out, in] of a model, several of a shape: one alone would be read
                from the device's cache.
            stream: to work on; no graph of it is alive.

        Returns:
            How many times as long the library takes as our kernel, by shape.
        """
        shapes = {(weight.shape[0], weight.shape[1]) for weight in weights}
        ratios = {}
        for shape in sorted(shapes):
            alike = [weight for weight in weights if tuple(weight.shape) == shape]
            x = alike[0].new_ones(1, shape[1])
            library = _seconds(partial(_each, F.linear, x, alike), stream)
            own = _seconds(partial(_each, self._streamed_bare, x, alike), stream)
            ratios[shape] = library / own
        self._streamed = {shape for shape, ratio in ratios.items() if ratio > 1}
        return ratios

    def norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """See :class:`Ops`."""
        return self._norms(x, None, weight, weight, eps)

    def add_norm(
        self, x: Tensor, branch: Tensor, branch_weight: Tensor, next_weight: Tensor, eps: float
    ) -> Tensor:
        """See :class:`Ops`."""
        return self._norms(x, branch, branch_weight, next_weight, eps)

    def _norms(
        self,
        x: Tensor,
        branch: Tensor | None,
        branch_weight: Tensor,
        next_weight: Tensor,
        eps: float,
    ) -> Tensor:
        size = x.shape[-1]
        normed = torch.empty_like(x)
        self._kernels.add_norms[(x.shape[0],)](
            x,
            x if branch is None else branch,
            branch_weight,
            next_weight,
            normed,
            eps,
            SIZE=size,
            PADDED=_padded(size),
            BRANCH=branch is not None,
            num_warps=8,
        )
        return normed

    def gated(self, gate_up: Tensor) -> Tensor:
        """See :class:`Ops`."""
        rows, size = gate_up.shape[0], gate_up.shape[1] // 2
        out = gate_up.new_empty(rows, size)
        tile = 1024
        self._kernels.gated_silu[(rows, -(-size // tile))](gate_up, out, SIZE=size, TILE=tile)
        return out

    def rotate_and_store(
        self,
        qkv: Tensor,
        angles: tuple[Tensor, Tensor],
        slots: Tensor,
        keys: Tensor,
        values: Tensor,
    ) -> None:
        """See :class:`Ops`."""
        kv_heads, width = keys.shape[2:]
        pairs = angles[0].shape[-1]
        self._kernels.rotate_and_store[(qkv.shape[0], qkv.shape[1])](
            qkv,
            *angles,
            slots,
            keys,
            values,
            HEADS=qkv.shape[1] - 2 * kv_heads,
            KV_HEADS=kv_heads,
            WIDTH=width,
            WIDTH_PADDED=_padded(width),
            PAIRS=pairs,
            PAIRS_PADDED=_padded(pairs),
            num_warps=1,
        )

    def paged_decode(self, q: Tensor, keys: Tensor, values: Tensor, tables: BlockTables) -> Tensor:
        """See :class:`Ops`."""
        rows, heads, width = q.shape
        block, kv_heads = keys.shape[1:3]
        splits = splits_for(rows * kv_heads, self._processors)
        parts = q.new_empty(rows, heads, splits, width, dtype=torch.float32)
        weights = q.new_empty(rows, heads, splits, dtype=torch.float32)
        out = q.new_empty(rows, heads, width)
        group = heads // kv_heads
        shape = {"WIDTH": width, "WIDTH_PADDED": max(16, _padded(width)), "SPLITS": splits}
        tile = 64 if q.element_size() == 2 else 32
        self._kernels.paged_decode[(rows, kv_heads, splits)](
            q,
            keys,
            values,
            tables.flat,
            tables.starts,
            tables.lengths,
            parts,
            weights,
            1 / math.sqrt(width) * math.log2(math.e),
            Q_STRIDE=q.stride(0),
            KV_HEADS=kv_heads,
            GROUP=group,
            GROUP_PADDED=max(16, _padded(group)),
            BLOCK=block,
            TILE=tile,
            num_stages=2,
            **shape,
        )
        self._kernels.combine[(rows, heads)](
            parts, weights, tables.lengths, out, HEADS=heads, TILE=tile, num_warps=2, **shape
        )
        return out


def _each(product: Callable[[Tensor, Tensor], Tensor], x: Tensor, weights: list[Tensor]) -> None:
    for weight in weights:
        product(x, weight)


def _seconds(work: Callable[[], object], stream: torch.cuda.Stream) -> float:
    """Return what a GPU takes for ``work``, launch costs left out: a captured graph is timed."""
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        work()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):  # waits for the device first
        work()
    taken: list[float] = []
    for _ in range(5):
        start = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        taken.append(start.elapsed_time(end) / 1e3)
    return statistics.median(taken)


MOST_SPLITS = 32


def splits_for(programs: int, processors: int) -> int:
    """Return how many parts a context is read in: a power of two that keeps a device busy.

    Args:
        programs: rows times KV heads, which work in parallel anyway.
        processors: multiprocessors of the device; two programs each are aimed at.
    """
    wanted = -(-2 * processors // programs)
    return min(MOST_SPLITS, _padded(wanted))


def _padded(size: int) -> int:
    """Return the least power of two that is no less: Triton's shapes are powers of two."""
    return 1 << (size - 1).bit_length()
