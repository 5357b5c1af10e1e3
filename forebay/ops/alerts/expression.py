"""The expressions of the rules: a part of PromQL, so that Prometheus judges the very same ones.

Source: https://prometheus.io/docs/prometheus/latest/querying/basics/. What is not here is refused
when the rules are read, never guessed at.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

FUNCTIONS: Final = frozenset({"rate", "increase", "changes", "time", "histogram_quantile"})
OVER_TIME: Final = frozenset({"rate", "increase", "changes"})
AGGREGATIONS: Final = frozenset({"sum", "max", "min", "count"})
COMPARISONS: Final = frozenset({">", "<", ">=", "<=", "==", "!="})

_TOKEN: Final = re.compile(
    r"\s*(?:(?P<range>\[\d+[smhd]\])|(?P<number>\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![smhd\w]))"
    r"|(?P<span>\d+[smhd])|(?P<text>\"[^\"\\]*\")|(?P<name>[A-Za-z_:][\w:]*)"
    r"|(?P<sign>=~|!~|>=|<=|==|!=|[-+*/><=(){},]))"
)
_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


class ExpressionError(ValueError):
    """The expression is not of the part of PromQL that is understood here."""


@dataclass(frozen=True, slots=True)
class Matcher:
    """What a label must be: ``=``, ``!=``, ``=~`` or ``!~``, as PromQL has them."""

    label: str
    sign: str
    value: str

    def fits(self, labels: dict[str, str]) -> bool:
        """Return whether a series with these labels is meant."""
        has = labels.get(self.label, "")
        equal = re.fullmatch(self.value, has) is not None if "~" in self.sign else has == self.value
        return equal is not self.sign.startswith("!")


@dataclass(frozen=True, slots=True)
class Selector:
    """Series by name and labels; ``range_s``: over how long, 0: now; ``offset_s``: how far back."""

    metric: str
    matchers: tuple[Matcher, ...] = ()
    range_s: float = 0.0
    offset_s: float = 0.0

    def fits(self, name: str, labels: dict[str, str]) -> bool:
        """Return whether a series is meant."""
        return name == self.metric and all(one.fits(labels) for one in self.matchers)


@dataclass(frozen=True, slots=True)
class Number:
    """A constant."""

    value: float


@dataclass(frozen=True, slots=True)
class Call:
    """A function of ``FUNCTIONS``."""

    function: str
    arguments: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Aggregate:
    """An aggregation of ``AGGREGATIONS``, by these labels."""

    how: str
    by: tuple[str, ...]
    of: Node


@dataclass(frozen=True, slots=True)
class Binary:
    """Arithmetic, a comparison that filters, ``and``, ``or``; series match by all their labels."""

    sign: str
    left: Node
    right: Node


Node = Number | Selector | Call | Aggregate | Binary


def parse(text: str) -> Node:
    """Read an expression. Raises ExpressionError."""
    reader = _Reader(_tokens(text), text)
    node = reader.either()
    reader.end()
    return node


def selectors(node: Node) -> tuple[Selector, ...]:
    """Return every selector of an expression."""
    match node:
        case Selector():
            return (node,)
        case Number():
            return ()
        case Call():
            return tuple(found for one in node.arguments for found in selectors(one))
        case Aggregate():
            return selectors(node.of)
        case Binary():
            return selectors(node.left) + selectors(node.right)


def _tokens(text: str) -> list[tuple[str, str]]:
    found, place = [], 0
    while text[place:].strip():
        match = _TOKEN.match(text, place)
        if match is None or match.lastgroup is None:
            raise ExpressionError(f"{text!r}: {text[place:].strip()[:20]!r} is not understood")
        found.append((match.lastgroup, match[match.lastgroup]))
        place = match.end()
    return found


class _Reader:
    """Reads tokens by recursive descent, in PromQL's order of precedence."""

    def __init__(self, tokens: list[tuple[str, str]], text: str) -> None:
        self._tokens = tokens
        self._text = text
        self._place = 0

    def either(self) -> Node:
        return self._chain(frozenset({"or"}), self._both)

    def end(self) -> None:
        if self._place != len(self._tokens):
            raise self._wrong()

    def _both(self) -> Node:
        return self._chain(frozenset({"and"}), self._comparison)

    def _comparison(self) -> Node:
        return self._chain(COMPARISONS, self._sum)

    def _sum(self) -> Node:
        return self._chain(frozenset("+-"), self._product)

    def _product(self) -> Node:
        return self._chain(frozenset("*/"), self._atom)

    def _chain(self, signs: frozenset[str], part: object) -> Node:
        assert callable(part)
        node: Node = part()
        while self._peek()[1] in signs and self._peek()[0] in ("sign", "name"):
            node = Binary(self._take(), node, part())
        return node

    def _atom(self) -> Node:
        kind, text = self._peek()
        if kind == "number":
            return Number(float(self._take()))
        if text == "(":
            return self._in_brackets()
        if kind != "name":
            raise self._wrong()
        name = self._take()
        if name in AGGREGATIONS:
            return self._aggregate(name)
        if name in FUNCTIONS:
            return self._call(name)
        if self._peek()[1] == "(":
            raise ExpressionError(f"{self._text!r}: the function {name!r} is not understood")
        return self._selector(name)

    def _in_brackets(self) -> Node:
        self._expect("(")
        node = self.either()
        self._expect(")")
        return node

    def _aggregate(self, how: str) -> Node:
        by: tuple[str, ...] = ()
        if self._peek()[1] == "by":
            self._take()
            by = self._labels()
        return Aggregate(how, by, self._in_brackets())

    def _labels(self) -> tuple[str, ...]:
        self._expect("(")
        found = [self._take("name")]
        while self._peek()[1] == ",":
            self._take()
            found.append(self._take("name"))
        self._expect(")")
        return tuple(found)

    def _call(self, name: str) -> Node:
        self._expect("(")
        arguments: list[Node] = []
        while self._peek()[1] != ")":
            arguments.append(self.either())
            if self._peek()[1] != ")":
                self._expect(",")
        self._expect(")")
        self._check_call(name, arguments)
        return Call(name, tuple(arguments))

    def _check_call(self, name: str, arguments: list[Node]) -> None:
        ranged = [isinstance(one, Selector) and one.range_s > 0 for one in arguments]
        wanted = {"time": [], "histogram_quantile": [False, False]}.get(name, [True])
        if ranged != wanted:
            raise ExpressionError(f"{self._text!r}: {name} is given what it does not take")

    def _selector(self, metric: str) -> Node:
        matchers: list[Matcher] = []
        if self._peek()[1] == "{":
            self._take()
            while self._peek()[1] != "}":
                matchers.append(self._matcher())
                if self._peek()[1] != "}":
                    self._expect(",")
            self._take()
        range_s = offset_s = 0.0
        if self._peek()[0] == "range":
            range_s = _seconds(self._take().strip("[]"))
        if self._peek()[1] == "offset":
            self._take()
            offset_s = _seconds(self._take("span"))
        return Selector(metric, tuple(matchers), range_s, offset_s)

    def _matcher(self) -> Matcher:
        label, sign = self._take("name"), self._take("sign")
        if sign not in ("=", "!=", "=~", "!~"):
            raise self._wrong()
        return Matcher(label, sign, self._take("text")[1:-1])

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._place] if self._place < len(self._tokens) else ("end", "")

    def _take(self, kind: str | None = None) -> str:
        found, text = self._peek()
        if found == "end" or kind not in (None, found):
            raise self._wrong()
        self._place += 1
        return text

    def _expect(self, sign: str) -> None:
        if self._take("sign") != sign:
            raise self._wrong()

    def _wrong(self) -> ExpressionError:
        rest = " ".join(text for _, text in self._tokens[max(0, self._place - 1) :]) or "its end"
        return ExpressionError(f"{self._text!r}: not understood at {rest[:40]!r}")


def _seconds(span: str) -> float:
    return float(span[:-1]) * _UNITS[span[-1]]
