"""What is set for all API processes at a port, one of them takes its part of, and no more."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.api.shares import SHARED_OUT, own_share
from forebay.config import SettingsError, load_settings


@given(count=st.integers(1, 16), decoders=st.integers(1, 64))
def test_the_parts_are_even_and_together_all_of_it(count: int, decoders: int) -> None:
    settings = load_settings(api_processes=count, image_processes=decoders)
    own = own_share(settings)
    assert own.image_processes == math.ceil(decoders / count)
    for name in SHARED_OUT:
        part, whole = getattr(own, name), getattr(settings, name)
        assert whole <= part * count < whole + count
    assert own_share(own) == own


def test_alone_a_process_has_everything() -> None:
    settings = load_settings()
    assert settings.api_processes == 1
    assert own_share(settings) == settings


@pytest.mark.parametrize("count", [0, 17, "two", 1.5])
def test_a_count_that_cannot_be_is_refused_by_its_name(count: object) -> None:
    with pytest.raises(SettingsError, match="FOREBAY_API_PROCESSES"):
        load_settings(api_processes=count)
