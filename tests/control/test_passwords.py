"""Passwords that can be, and random ones."""

import pytest

from llmgateway.control.passwords import LETTERS, LONGEST, SHORTEST, password_in, random_password
from llmgateway.domain.errors import InvalidRequest
from llmgateway.domain.secret import Secret


@pytest.mark.parametrize("password", ["abcd" * 3, "ä" * 7 + "öåü", "x yz" * (LONGEST // 4), "abcdefghij"])
def test_what_may_be_one_comes_back_as_it_is(password: str) -> None:
    assert password_in(Secret(password), "alice") == password


@pytest.mark.parametrize(
    "password", ["", "a" * SHORTEST, "abc" * 3, "abcd" * LONGEST, "Alice-Alice", "abc\ud800defghi"]
)
def test_what_may_not_is_told_without_being_said(password: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        password_in(Secret(password), " alice-alice ", "new")
    assert refused.value.param == "new"
    assert not password or password not in refused.value.message


def test_random_ones_differ_and_may_be_passwords() -> None:
    made = [random_password() for _ in range(50)]
    assert len({one.reveal() for one in made}) == 50
    for one in made:
        assert set(one.reveal()) <= {*LETTERS, "-"}
        assert password_in(one, "alice") == one.reveal()
