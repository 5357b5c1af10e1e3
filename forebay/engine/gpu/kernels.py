"""Triton kernels of the decoder. Import this module only where Triton is installed.

Each has a twin in plain torch, ``forebay.engine.gpu.ops.TorchOps``, that says the same thing.
Integer arguments that change from call to call are read from memory or marked, since Triton
compiles a kernel anew for some values of an integer (1, multiples of 16).
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def add_norms(
    x,
    branch,
    branch_weight,
    next_weight,
    normed,
    eps,
    SIZE: tl.constexpr,
    PADDED: tl.constexpr,
    BRANCH: tl.constexpr,
):
    """One row a program: x += norm(branch) where there is a branch; normed = norm(x)."""
    row = tl.program_id(0).to(tl.int64) * SIZE
    at = tl.arange(0, PADDED)
    valid = at < SIZE
    total = tl.load(x + row + at, mask=valid, other=0.0)
    if BRANCH:
        wide = tl.load(branch + row + at, mask=valid, other=0.0).to(tl.float32)
        wide = wide / tl.sqrt(tl.sum(wide * wide, axis=0) / SIZE + eps)
        weight = tl.load(branch_weight + at, mask=valid, other=0.0).to(tl.float32)
        total = (total.to(tl.float32) + wide * weight).to(total.dtype)
        tl.store(x + row + at, total, mask=valid)
    wide = total.to(tl.float32)
    wide = wide / tl.sqrt(tl.sum(wide * wide, axis=0) / SIZE + eps)
    weight = tl.load(next_weight + at, mask=valid, other=0.0).to(tl.float32)
    tl.store(normed + row + at, (wide * weight).to(total.dtype), mask=valid)


@triton.jit
def gated_silu(gate_up, out, SIZE: tl.constexpr, TILE: tl.constexpr):
    """silu(gate) * up of rows [gate | up]; one tile of a row a program."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * TILE + tl.arange(0, TILE)
    valid = at < SIZE
    gate = tl.load(gate_up + row * 2 * SIZE + at, mask=valid, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * 2 * SIZE + SIZE + at, mask=valid, other=0.0)
    fed = gate / (1.0 + tl.exp(-gate)) * up.to(tl.float32)
    tl.store(out + row * SIZE + at, fed.to(up.dtype), mask=valid)


@triton.jit
def rotate_and_store(
    qkv,
    cos,
    sin,
    slots,
    keys,
    values,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    WIDTH_PADDED: tl.constexpr,
    PAIRS: tl.constexpr,
    PAIRS_PADDED: tl.constexpr,
):
    """Rotate q and k of one head of one token in place; put k and v into their cache slot."""
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    base = qkv + (token * (HEADS + 2 * KV_HEADS) + head) * WIDTH
    slot = tl.load(slots + token).to(tl.int64)
    if head < HEADS + KV_HEADS:
        pair = tl.arange(0, PAIRS_PADDED)
        turned = pair < PAIRS
        # neighbouring dimensions turn together, by the angle of their pair
        even = tl.load(base + 2 * pair, mask=turned, other=0.0)
        odd = tl.load(base + 2 * pair + 1, mask=turned, other=0.0)
        c = tl.load(cos + token * PAIRS + pair, mask=turned, other=0.0)
        s = tl.load(sin + token * PAIRS + pair, mask=turned, other=0.0)
        first = (even.to(tl.float32) * c - odd.to(tl.float32) * s).to(even.dtype)
        second = (odd.to(tl.float32) * c + even.to(tl.float32) * s).to(even.dtype)
        tl.store(base + 2 * pair, first, mask=turned)
        tl.store(base + 2 * pair + 1, second, mask=turned)
        if head >= HEADS:
            into = keys + (slot * KV_HEADS + head - HEADS) * WIDTH
            tl.store(into + 2 * pair, first, mask=turned)
            tl.store(into + 2 * pair + 1, second, mask=turned)
            at = tl.arange(0, WIDTH_PADDED)
            rest = (at >= 2 * PAIRS) & (at < WIDTH)
            tl.store(into + at, tl.load(base + at, mask=rest, other=0.0), mask=rest)
    else:
        at = tl.arange(0, WIDTH_PADDED)
        whole = at < WIDTH
        into = values + (slot * KV_HEADS + head - HEADS - KV_HEADS) * WIDTH
        tl.store(into + at, tl.load(base + at, mask=whole, other=0.0), mask=whole)


@triton.jit
def _span(length, SPLITS: tl.constexpr, TILE: tl.constexpr):
    """Tokens of context that one split reads: whole tiles, the context shared out evenly."""
    return tl.cdiv(tl.cdiv(length, SPLITS), TILE) * TILE


@triton.jit
def paged_decode(
    q,
    keys,
    values,
    tables,
    starts,
    lengths,
    partial,
    weights,
    scale,
    Q_STRIDE: tl.constexpr,
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    GROUP_PADDED: tl.constexpr,
    WIDTH: tl.constexpr,
    WIDTH_PADDED: tl.constexpr,
    BLOCK: tl.constexpr,
    SPLITS: tl.constexpr,
    TILE: tl.constexpr,
):
    """Attend from one token over one split of its context, for the heads that share a KV head.

    Reads keys and values where they lie, a tile of tokens at a time, through the row's block
    table (``tables[starts[row]:]``). Writes the split's own softmax average to ``partial``
    [rows, heads, SPLITS, WIDTH] and the logarithm (base 2) of its sum to ``weights``
    [rows, heads, SPLITS]; ``combine`` joins the splits. Source: Flash-Decoding (Dao et al., 2023).
    """
    row = tl.program_id(0)
    kv_head = tl.program_id(1)
    split = tl.program_id(2)
    length = tl.load(lengths + row)
    span = _span(length, SPLITS, TILE)
    first = split * span
    if first < length:
        last = tl.minimum(first + span, length)
        table = tables + tl.load(starts + row)
        member = tl.arange(0, GROUP_PADDED)
        at = tl.arange(0, WIDTH_PADDED)
        head = kv_head * GROUP + member
        wanted = (member < GROUP)[:, None] & (at < WIDTH)[None, :]
        q_at = row.to(tl.int64) * Q_STRIDE + head[:, None] * WIDTH + at[None, :]
        queries = tl.load(q + q_at, mask=wanted, other=0.0)
        best = tl.full([GROUP_PADDED], float("-inf"), tl.float32)
        total = tl.zeros([GROUP_PADDED], tl.float32)
        out = tl.zeros([GROUP_PADDED, WIDTH_PADDED], tl.float32)
        for begin in range(first, last, TILE):
            token = begin + tl.arange(0, TILE)
            held = token < last
            block = tl.load(table + token // BLOCK, mask=held, other=0).to(tl.int64)
            place = (block * BLOCK + token % BLOCK) * KV_HEADS + kv_head
            where = place[:, None] * WIDTH + at[None, :]
            read = held[:, None] & (at < WIDTH)[None, :]
            key = tl.load(keys + where, mask=read, other=0.0)
            score = tl.dot(queries, tl.trans(key), input_precision="ieee") * scale
            score = tl.where(held[None, :], score, float("-inf"))
            new_best = tl.maximum(best, tl.max(score, axis=1))
            share = tl.exp2(score - new_best[:, None])
            fade = tl.exp2(best - new_best)
            value = tl.load(values + where, mask=read, other=0.0)
            out = out * fade[:, None]
            out += tl.dot(share.to(value.dtype), value, input_precision="ieee")
            total = total * fade + tl.sum(share, axis=1)
            best = new_best
        heads = row.to(tl.int64) * KV_HEADS * GROUP + head
        into = (heads * SPLITS + split)[:, None] * WIDTH + at[None, :]
        tl.store(partial + into, out / total[:, None], mask=wanted)
        tl.store(weights + heads * SPLITS + split, best + tl.log2(total), mask=member < GROUP)


@triton.jit
def combine(
    partial,
    weights,
    lengths,
    out,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    WIDTH_PADDED: tl.constexpr,
    SPLITS: tl.constexpr,
    TILE: tl.constexpr,
):
    """Join the splits of one head of one row, each by the weight of its own softmax."""
    row = tl.program_id(0)
    head = row.to(tl.int64) * HEADS + tl.program_id(1)
    length = tl.load(lengths + row)
    split = tl.arange(0, SPLITS)
    used = split * _span(length, SPLITS, TILE) < length
    weight = tl.load(weights + head * SPLITS + split, mask=used, other=float("-inf"))
    share = tl.exp2(weight - tl.max(weight, axis=0))
    at = tl.arange(0, WIDTH_PADDED)
    where = (head * SPLITS + split)[:, None] * WIDTH + at[None, :]
    parts = tl.load(partial + where, mask=used[:, None] & (at < WIDTH)[None, :], other=0.0)
    joined = tl.sum(parts * share[:, None], axis=0) / tl.sum(share, axis=0)
    tl.store(out + head * WIDTH + at, joined.to(out.dtype.element_ty), mask=at < WIDTH)


@triton.jit
def one_row_product(
    x,
    weight,
    bias,
    out,
    COLUMNS: tl.constexpr,
    ROWS: tl.constexpr,
    BIAS: tl.constexpr,
    TILE_ROWS: tl.constexpr,
    TILE_COLUMNS: tl.constexpr,
):
    """Multiply ``weight`` [ROWS, COLUMNS] by the one vector ``x``, a few rows a program.

    Partial sums stay apart until the end, so that the loop is loads and multiply-adds alone.
    """
    row = tl.program_id(0) * TILE_ROWS + tl.arange(0, TILE_ROWS)
    held = row < ROWS
    at = tl.arange(0, TILE_COLUMNS)
    begin = weight + row.to(tl.int64)[:, None] * COLUMNS
    total = tl.zeros([TILE_ROWS, TILE_COLUMNS], tl.float32)
    for first in range(0, COLUMNS, TILE_COLUMNS):
        column = first + at
        inside = column < COLUMNS
        read = held[:, None] & inside[None, :]
        part = tl.load(begin + column[None, :], mask=read, other=0.0).to(tl.float32)
        vector = tl.load(x + column, mask=inside, other=0.0).to(tl.float32)
        total += part * vector[None, :]
    said = tl.sum(total, axis=1)
    if BIAS:
        said += tl.load(bias + row, mask=held, other=0.0).to(tl.float32)
    tl.store(out + row, said.to(out.dtype.element_ty), mask=held)
