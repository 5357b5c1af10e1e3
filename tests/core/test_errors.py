"""Every error says its meaning to a program and to a person."""

from __future__ import annotations

import pytest

from forebay.core.errors import ForebayError, all_errors, error_for_code


def test_codes_are_unique():
    codes = [cls.code for cls in all_errors()]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize("cls", all_errors(), ids=lambda cls: cls.__name__)
def test_an_error_states_status_meaning_and_mend(cls: type[ForebayError]):
    assert 400 <= cls.status < 600
    assert cls.__doc__
    assert cls.mend.endswith(".")
    assert error_for_code(cls.code) is cls


def test_only_errors_that_may_pass_are_retryable():
    assert not any(cls.retryable for cls in all_errors() if cls.status < 429 and cls.status != 408)


def test_an_unknown_code_is_an_internal_error():
    assert error_for_code("from-a-newer-version") is ForebayError
