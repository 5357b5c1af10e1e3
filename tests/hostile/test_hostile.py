"""Whatever is thrown at the door, it refuses cleanly, loses nothing, and says nothing of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from tests.checkpoints import TINY, write_checkpoint
from tests.hostile.assault import assault
from tests.hostile.attacks import SHARES, attacks
from tests.hostile.run import fault_in
from tests.hostile.tokens import TRICKS, Issuer, token_trick
from tests.hostile.urls import Hosts
from tests.outbound.raw_server import RawServer


@pytest.mark.parametrize(
    ("count", "seed"), [(200, 1), pytest.param(2000, 2, marks=pytest.mark.slow)]
)
def test_every_attack_is_refused_and_the_stack_goes_on(tmp_path: Path, count, seed):
    model = write_checkpoint(tmp_path / "model", replace(TINY, stop_tokens=()))
    figures = assault(tmp_path / "data", model, count, seed)
    assert figures["faults"] == []
    assert figures["total"] == count
    assert set(figures["sent"]) == set(SHARES)


def test_the_same_seed_is_the_same_attacks():
    hosts = Hosts(RawServer({"/to-a": b"", "/b": b""}), RawServer())
    assert sum(SHARES.values()) == 100
    issuer = Issuer(RawServer())
    one, other, another = (list(attacks(120, seed, hosts, issuer)) for seed in (7, 7, 8))
    assert [attack.request for attack in one] == [attack.request for attack in other]
    assert [attack.request for attack in one] != [attack.request for attack in another]


def test_the_tricks_with_tokens_are_of_every_kind_and_the_same_for_a_seed():
    issuer = Issuer(RawServer())
    one, other = ([token_trick(issuer, rng) for _ in range(400)] for rng in (Random(7), Random(7)))
    assert [trick.request for trick in one] == [trick.request for trick in other]
    assert {trick.about for trick in one} == {*TRICKS, "header", "scope"}
    assert len({trick.request for trick in one}) > 300


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n\r\n{}",
        b"HTTP/1.1 500 Internal Server Error\r\n\r\n{}",
        b"HTTP/1.1 422 X\r\n\r\ncannot identify <_io.BytesIO object at 0x7f>",
    ],
)
def test_an_answer_that_is_no_clean_refusal_is_a_fault(answer):
    assert fault_in(answer, refused=True)
    assert not fault_in(b"HTTP/1.1 422 X\r\n\r\n{}", refused=True)
    assert not fault_in(b"HTTP/1.1 200 OK\r\n\r\n{}", refused=False)
