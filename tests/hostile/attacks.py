"""Every kind of attack, and how many of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from random import Random

from tests.hostile import pictures, requests
from tests.hostile.attack import Attack, carried
from tests.hostile.tokens import Issuer, token_trick
from tests.hostile.urls import Hosts

SHARES: Mapping[str, int] = {
    "format": 16,
    "truncated": 16,
    "bomb": 10,
    "polyglot": 12,
    "base64": 12,
    "json": 6,
    "multipart": 6,
    "http": 4,
    "url": 8,
    "slow upload": 2,
    "token": 8,
}
"""Of a hundred."""

_FILES = {
    "format": pictures.of_another_format,
    "truncated": pictures.truncated,
    "bomb": pictures.bomb,
    "polyglot": pictures.polyglot,
}
_REQUESTS = {
    "base64": requests.base64_garbage,
    "json": requests.json_garbage,
    "multipart": requests.form_garbage,
    "http": requests.http_garbage,
    "slow upload": requests.slow_upload,
}


def attacks(count: int, seed: int, hosts: Hosts, issuer: Issuer) -> Iterator[Attack]:
    """Yield so many attacks that must all be refused; the same for the same seed and hosts."""
    rng = Random(seed)
    kinds = [kind for kind, share in SHARES.items() for _ in range(share)]
    for number in range(count):
        if number % len(kinds) == 0:
            rng.shuffle(kinds)
        yield _attack(kinds[number % len(kinds)], rng, hosts, issuer)


def doubtful(count: int, seed: int) -> Iterator[Attack]:
    """Yield pictures with bytes changed: each is refused or answered, and nothing else happens."""
    rng = Random(seed)
    for _ in range(count):
        yield carried("damaged", pictures.damaged(rng), rng)


def _attack(kind: str, rng: Random, hosts: Hosts, issuer: Issuer) -> Attack:
    if kind == "url":
        return hosts.hostile_url(rng)
    if kind == "token":
        return token_trick(issuer, rng)
    if kind in _FILES:
        return carried(kind, _FILES[kind](rng), rng)
    return _REQUESTS[kind](rng)
