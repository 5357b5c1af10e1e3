"""Evaluates expressions over a history, as Prometheus does over its own.

Source: the semantics of PromQL; ``rate`` and ``increase`` extrapolate by the rules of its
``extrapolatedRate``, ``histogram_quantile`` interpolates within a bucket. A test gives both the
same series and compares.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final

from forebay.ops.alerts.expression import (
    COMPARISONS,
    Aggregate,
    Binary,
    Call,
    Node,
    Number,
    Selector,
)
from forebay.ops.alerts.series import History, Labels

Vector = dict[Labels, float]
Points = Sequence[tuple[float, float]]

_LEAST_POINTS: Final = 2


def _ratio(left: float, right: float) -> float:
    if right != 0:
        return left / right
    return math.nan if left == 0 or math.isnan(left) else math.copysign(math.inf, left)


_SIGNS: Final[dict[str, Callable[[float, float], float]]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": _ratio,
}
_COMPARE: Final[dict[str, Callable[[float, float], bool]]] = {
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}
_COMBINE: Final[dict[str, Callable[[list[float]], float]]] = {
    "sum": sum,
    "max": max,
    "min": min,
    "count": lambda values: float(len(values)),
}


def evaluate(node: Node, history: History, now_s: float) -> Vector:
    """Return the series for which an expression holds, with their values.

    Raises TypeError for an expression that is a number alone; a rule's is none.
    """
    found = _value(node, history, now_s)
    if isinstance(found, float):
        raise TypeError("an expression of a rule is about series")
    return found


def _value(node: Node, history: History, now_s: float) -> Vector | float:
    match node:
        case Number():
            return node.value
        case Selector():
            return history.at(node, now_s)
        case Call():
            return _call(node, history, now_s)
        case Aggregate():
            return _aggregate(node, _value(node.of, history, now_s))
        case Binary():
            left, right = _value(node.left, history, now_s), _value(node.right, history, now_s)
            return _binary(node.sign, left, right)


def _call(node: Call, history: History, now_s: float) -> Vector | float:
    if node.function == "time":
        return now_s
    if node.function == "histogram_quantile":
        share, buckets = (_value(one, history, now_s) for one in node.arguments)
        assert isinstance(share, float)
        assert isinstance(buckets, dict)
        return _quantiles(share, buckets)
    (selector,) = node.arguments
    assert isinstance(selector, Selector)
    until_s = now_s - selector.offset_s
    found: Vector = {}
    for labels, points in history.within(selector, now_s).items():
        value = _over_time(node.function, points, until_s - selector.range_s, until_s)
        if value is not None:
            found[labels] = value
    return found


def _over_time(function: str, points: Points, from_s: float, until_s: float) -> float | None:
    if function == "changes":
        pairs = pairwise(points)
        return float(sum(a[1] != b[1] for a, b in pairs)) if points else None
    grown = _increase(points, from_s, until_s)
    return grown if grown is None or function == "increase" else grown / (until_s - from_s)


def _increase(points: Points, from_s: float, until_s: float) -> float | None:
    """Return by how much a counter grew, extrapolated to the ends of the range."""
    if len(points) < _LEAST_POINTS:
        return None
    (first_s, first), (last_s, last) = points[0], points[-1]
    pairs = pairwise(points)
    grown = last - first + sum(a[1] for a, b in pairs if b[1] < a[1])  # a counter that began anew
    sampled_s = last_s - first_s
    interval_s = sampled_s / (len(points) - 1)
    before_s, after_s = first_s - from_s, until_s - last_s
    if grown > 0 and first >= 0:
        before_s = min(before_s, sampled_s * first / grown)  # it was 0 then, and not less before
    threshold_s = interval_s * 1.1
    extended_s = sampled_s
    for gap_s in (before_s, after_s):
        extended_s += gap_s if gap_s < threshold_s else interval_s / 2
    return grown * extended_s / sampled_s


def _quantiles(share: float, buckets: Vector) -> Vector:
    grouped: dict[Labels, list[tuple[float, float]]] = {}
    for labels, value in buckets.items():
        rest = tuple(pair for pair in labels if pair[0] != "le")
        bound = dict(labels).get("le")
        if bound is not None:
            grouped.setdefault(rest, []).append((float(bound), value))
    return {labels: _quantile(share, sorted(found)) for labels, found in grouped.items()}


def _quantile(share: float, buckets: list[tuple[float, float]]) -> float:
    """Return a quantile of a histogram with these cumulative buckets, interpolated linearly."""
    total = buckets[-1][1]
    if len(buckets) < 2 or buckets[-1][0] != math.inf or not total > 0:
        return math.nan
    rank = share * total
    here = next(i for i, (_, count) in enumerate(buckets) if count >= rank)
    if here == len(buckets) - 1:
        return buckets[-2][0]
    bound, count = buckets[here]
    below, counted = (0.0, 0.0) if here == 0 else buckets[here - 1]
    if here == 0 and bound <= 0:
        return bound
    return below + (bound - below) * (rank - counted) / (count - counted)


def _aggregate(node: Aggregate, of: Vector | float) -> Vector:
    assert isinstance(of, dict)
    grouped: dict[Labels, list[float]] = {}
    for labels, value in of.items():
        kept = tuple(pair for pair in labels if pair[0] in node.by)
        grouped.setdefault(kept, []).append(value)
    return {labels: _COMBINE[node.how](values) for labels, values in grouped.items()}


def _binary(sign: str, left: Vector | float, right: Vector | float) -> Vector | float:
    if sign in ("and", "or"):
        assert isinstance(left, dict)
        assert isinstance(right, dict)
        return {**right, **left} if sign == "or" else {k: v for k, v in left.items() if k in right}
    if sign in COMPARISONS:
        return _compare(_COMPARE[sign], left, right)
    return _arithmetic(_SIGNS[sign], left, right)


def _arithmetic(
    work: Callable[[float, float], float], left: Vector | float, right: Vector | float
) -> Vector | float:
    match left, right:
        case float(), float():
            return work(left, right)
        case dict(), float():
            return {labels: work(value, right) for labels, value in left.items()}
        case float(), dict():
            return {labels: work(left, value) for labels, value in right.items()}
        case dict(), dict():
            return {k: work(value, right[k]) for k, value in left.items() if k in right}
    raise AssertionError("a value is a number or a vector")


def _compare(
    holds: Callable[[float, float], bool], left: Vector | float, right: Vector | float
) -> Vector:
    """Return what a comparison leaves of the left side, or of the right where that is a number."""
    match left, right:
        case dict(), float():
            return {labels: value for labels, value in left.items() if holds(value, right)}
        case float(), dict():
            return {labels: value for labels, value in right.items() if holds(left, value)}
        case dict(), dict():
            return {k: v for k, v in left.items() if k in right and holds(v, right[k])}
    raise TypeError("two numbers are not compared in a rule")
