"""From logits to tokens. What a row gives depends on that row alone, whatever shares the batch.

A row passes: constraint, tokens that may not come yet, penalties; then the likeliest token, or
temperature, one cut by top-k, min-p and top-p, and a draw. Rows that ask for less pay for less.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from forebay.core.request import SamplingParams
from forebay.engine.penalties import TokenCounts, penalise

MOST_LOGPROBS = 20
"""Most alternatives that are told beside a token."""

_FEW = 1024
"""Values of a row that are ordered at first: a model that knows what it says needs no more."""

_COLDEST = 1e-6
"""Lower temperatures are taken as this one: below 1e-45 a 32-bit number is zero and divides by it.
Tokens whose logits differ by 0.001 are already e^1000 times as likely as each other."""


@dataclass(frozen=True, slots=True)
class Row:
    """What the choice of one token depends on, beside its logits.

    Attributes:
        params: how to choose.
        seed, index, position: the draw is a pure function of the request's seed, of which of its
            answers this is, and of how many tokens that answer has.
        counts: the tokens so far, where the row is penalised.
        banned: ids that may not come.
        allowed: a bit for each id, the lowest first, where a constraint says what may come.
    """

    params: SamplingParams
    seed: int = 0
    position: int = 0
    index: int = 0
    counts: TokenCounts | None = None
    banned: Collection[int] = ()
    allowed: bytes | None = None

    @property
    def plain(self) -> bool:
        """Whether the likeliest token of the untouched logits is the answer."""
        touched = self.counts is not None or self.banned or self.allowed is not None
        return self.params.temperature == 0 and not touched


@dataclass(frozen=True, slots=True)
class Sampled:
    """A chosen token; where the row wants it, its log-probability and the likeliest tokens'."""

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


@torch.inference_mode()
def sample(logits: Tensor, rows: Sequence[Row]) -> list[Sampled]:
    """Choose one token a row.

    Args:
        logits: [rows, vocabulary]; left as they are.
        rows: one for each row of the logits, which must be :func:`choosable`. A row must allow
            one token at least.
    """
    tokens = [0] * len(rows)
    plain = [at for at, row in enumerate(rows) if row.plain]
    cold = [at for at, row in enumerate(rows) if not row.plain and row.params.temperature == 0]
    warm = [at for at, row in enumerate(rows) if row.params.temperature > 0]
    if plain:
        # over all rows: faster than to copy the plain ones together
        likeliest = logits.argmax(dim=-1).tolist()
        _fill(tokens, plain, [likeliest[at] for at in plain])
    if cold:
        chosen = _adjusted(logits, cold, rows).argmax(dim=-1).tolist()
        _fill(tokens, cold, chosen)
    if warm:
        _fill(tokens, warm, _draw(_adjusted(logits, warm, rows), [rows[at] for at in warm]))
    told = _logprobs(logits, tokens, rows)
    return [told.get(at, Sampled(token)) for at, token in enumerate(tokens)]


def choosable(logits: Tensor) -> list[bool]:
    """Return for each row of logits [rows, vocabulary] whether a token can be chosen by it.

    A row with a NaN or an infinite best has come of an overflow; whatever it seemed to say would
    be noise.
    """
    found: list[bool] = logits.amax(dim=-1).isfinite().tolist()
    return found


def _fill(tokens: list[int], places: list[int], chosen: list[int]) -> None:
    for at, token in zip(places, chosen, strict=True):
        tokens[at] = token


def _adjusted(logits: Tensor, places: list[int], rows: Sequence[Row]) -> Tensor:
    """Return a float copy of some rows after constraint, bans and penalties."""
    own = _select(logits, places).float()
    penalised: list[tuple[int, TokenCounts]] = []
    for at, row in enumerate(rows[place] for place in places):
        if row.allowed is not None:
            own[at].masked_fill_(_forbidden(row.allowed, own), -math.inf)
        if row.banned:
            own[at, list(row.banned)] = -math.inf
        if row.counts is not None:
            penalised.append((at, row.counts))
    penalise(own, penalised)
    return own


def _select(logits: Tensor, places: list[int]) -> Tensor:
    """Return a copy of some rows."""
    if len(places) == len(logits):
        return logits.clone()
    return logits.index_select(0, torch.tensor(places, device=logits.device))


def _forbidden(allowed: bytes, logits: Tensor) -> Tensor:
    bits = np.unpackbits(np.frombuffer(allowed, dtype=np.uint8), bitorder="little")
    width = logits.shape[-1]
    # ids past the grammar's vocabulary are padding of the logits
    may = np.zeros(width, dtype=np.bool_)
    may[: bits.size] = bits[:width]
    return torch.from_numpy(~may).to(logits.device)


def _draw(logits: Tensor, rows: list[Row]) -> list[int]:
    """Draw from each row by the inverse of its cumulative distribution. Changes ``logits``."""
    heat = _column([max(_COLDEST, row.params.temperature) for row in rows], logits)
    # from the highest down: the coldest row cannot overflow
    heated = logits.sub_(logits.amax(dim=-1, keepdim=True)).div_(heat)
    tokens = [0] * len(rows)
    whole = [at for at, row in enumerate(rows) if not _is_cut(row.params)]
    cut = [at for at, row in enumerate(rows) if _is_cut(row.params)]
    if cut:
        own = heated if not whole else _select(heated, cut)
        _fill(tokens, cut, _draw_cut(own, [rows[at] for at in cut]))
    if whole:
        own = heated if not cut else _select(heated, whole)
        mass = own.exp_().cumsum(dim=-1, dtype=torch.float64)
        points = _column([_uniform(rows[at]) for at in whole], mass)
        found = torch.searchsorted(mass, points * mass[:, -1:], right=True)
        _fill(tokens, whole, found.squeeze(1).clamp_(max=mass.shape[-1] - 1).tolist())
    return tokens


def _is_cut(params: SamplingParams) -> bool:
    return params.top_p < 1 or params.top_k > 0 or params.min_p > 0


def _draw_cut(heated: Tensor, rows: list[Row]) -> list[int]:
    """Draw where only the likeliest may come.

    A row is first looked at by its ``_FEW`` likeliest values. Where its cuts may reach further,
    all of its values are put in order; which of the two happens follows from the row alone.
    """
    width = heated.shape[-1]
    if width <= _FEW:
        return _draw_ordered(heated, _descending(heated, width), rows)[0]
    few = _descending(heated, _FEW)
    tokens, within = _draw_ordered(heated, few, rows)
    beyond = [at for at, inside in enumerate(within) if not inside]
    if beyond:
        own = _select(heated, beyond)
        again, _ = _draw_ordered(own, _descending(own, width), [rows[at] for at in beyond])
        _fill(tokens, beyond, again)
    return tokens


def _draw_ordered(heated: Tensor, ordered: Tensor, rows: list[Row]) -> tuple[list[int], list[bool]]:
    """Draw by the likeliest values [rows, some], the highest first.

    All three cuts are beginnings of one order: that of top-k and min-p, and of it the fewest that
    hold top-p of its mass.

    Returns:
        Tokens, and for each whether ``ordered`` held all that its cuts let through.
    """
    width = ordered.shape[-1]
    mass = ordered.exp().cumsum(dim=-1, dtype=torch.float64)
    floor = [math.log(row.params.min_p) if row.params.min_p > 0 else -math.inf for row in rows]
    likely = (ordered >= _column(floor, ordered)).sum(dim=-1, keepdim=True)
    most = [min(row.params.top_k, width) if row.params.top_k > 0 else width for row in rows]
    last = torch.minimum(likely, torch.tensor(most, device=likely.device).unsqueeze(1)) - 1
    kept = mass.gather(1, last)
    within = [
        count < width or 0 < row.params.top_k <= width
        for count, row in zip(likely.squeeze(1).tolist(), rows, strict=True)
    ]
    open_ended = [at for at, inside in enumerate(within) if not inside]
    if open_ended and width < heated.shape[-1]:
        # what lies past the values in hand counts towards the mass that top-p is a share of
        kept[open_ended] = _mass(_select(heated, open_ended), [floor[at] for at in open_ended])
    nucleus = _column([row.params.top_p for row in rows], mass) * kept
    enough = (mass[:, -1:] >= nucleus).squeeze(1).tolist()
    # of a top-k that ends further on, the mass is not known yet
    within = [
        inside or (reached and row.params.top_k == 0)
        for inside, reached, row in zip(within, enough, rows, strict=True)
    ]
    last = torch.searchsorted(mass, nucleus).minimum(last)
    target = _column([_uniform(row) for row in rows], mass) * mass.gather(1, last)
    place = torch.searchsorted(mass, target, right=True).minimum(last)
    return _tokens_at(heated, ordered, place), within


def _mass(heated: Tensor, floor: list[float]) -> Tensor:
    """Return the mass [rows, 1] of the values that min-p lets through. Changes ``heated``."""
    if max(floor) > -math.inf:
        heated.masked_fill_(heated < _column(floor, heated), -math.inf)
    return heated.exp_().sum(dim=-1, keepdim=True, dtype=torch.float64)


def _tokens_at(heated: Tensor, ordered: Tensor, place: Tensor) -> list[int]:
    """Return the token at a place of the order; of equally likely ones the lower id stands first.

    The order is of values alone, which is a fast sort, and leaves ties to no algorithm's whim.
    """
    value = ordered.gather(1, place)
    rank = place - (ordered > value).sum(dim=-1, keepdim=True)
    row_of, token = (heated == value).nonzero(as_tuple=True)
    first = torch.searchsorted(row_of, torch.arange(len(heated), device=row_of.device))
    tokens: list[int] = token[first + rank.squeeze(1)].tolist()
    return tokens


def _descending(values: Tensor, count: int) -> Tensor:
    """Return the highest ``count`` values of each row, the highest first."""
    if values.device.type != "cpu":
        return values.topk(count, dim=-1).values
    # numpy orders by vector instructions: many times faster than torch on a CPU
    own = values.numpy()
    if count < own.shape[-1]:
        own = np.partition(own, -count, axis=-1)[:, -count:]
    return torch.from_numpy(np.sort(own, axis=-1)).flip(-1)


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device).unsqueeze(1)


def _uniform(row: Row) -> float:
    """Return the number in [0, 1) that belongs to this token of this answer."""
    name = f"{row.seed}:{row.index}:{row.position}".encode()
    digest = hashlib.blake2b(name, digest_size=8).digest()
    return (int.from_bytes(digest) >> 11) / 2**53


def _logprobs(logits: Tensor, tokens: list[int], rows: Sequence[Row]) -> dict[int, Sampled]:
    """Return by row what the model itself thought of the tokens, where that is wanted."""
    places = [at for at, row in enumerate(rows) if row.params.logprobs is not None]
    if not places:
        return {}
    own = _select(logits, places).float()
    total = own.logsumexp(dim=-1, keepdim=True)
    chosen = torch.tensor([tokens[at] for at in places], device=own.device).unsqueeze(1)
    values = (own.gather(1, chosen) - total).squeeze(1).tolist()
    # always as many, so that ties fall alike in every batch
    likeliest = own.topk(min(MOST_LOGPROBS, own.shape[-1]), dim=-1)
    top_ids, top_values = likeliest.indices.tolist(), (likeliest.values - total).tolist()
    told = {}
    for order, at in enumerate(places):
        pairs = zip(top_ids[order], top_values[order], strict=True)
        told[at] = Sampled(tokens[at], values[order], tuple(pairs)[: rows[at].params.logprobs])
    return told
