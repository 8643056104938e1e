"""What people may write into keys and users."""

import pytest

from llmgateway.control.checks import email_in, limits_in, name_in, optional_name, project_id_in, user_id_in
from llmgateway.domain.errors import InvalidRequest
from llmgateway.domain.limits import Limits


def test_names_lose_the_spaces_around_them() -> None:
    assert name_in("  Jörg's laptop ", "name") == "Jörg's laptop"
    assert optional_name(None, "name") is None


@pytest.mark.parametrize("name", ["", " ", "a\x00b", "a\u202eb", "x" * 101])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        name_in(name, "name")
    assert refused.value.param == "name"


@pytest.mark.parametrize("name", ["alice", "a@example.org", "https://idp.example!x", "..a", "a/b"])
def test_user_ids(name: str) -> None:
    assert user_id_in(name, "user") == name


@pytest.mark.parametrize("name", [".", "..", "a/", "a/..", "/", "x" * 201])
def test_user_ids_that_are_none(name: str) -> None:
    with pytest.raises(InvalidRequest):
        user_id_in(name, "user")


@pytest.mark.parametrize("address", ["x", "@", "a@", "@b", ""])
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(InvalidRequest):
        email_in(address)


@pytest.mark.parametrize("name", ["lab/end", "lab/keys", "lab/members", "lab/forget", "x" * 101, "a/.."])
def test_project_ids_that_are_none(name: str) -> None:
    with pytest.raises(InvalidRequest):
        project_id_in(name, "id")


def test_limits_have_a_largest_number() -> None:
    assert limits_in(None) == Limits()
    assert limits_in(Limits(tokens_per_day=2**53 - 1)).tokens_per_day == 2**53 - 1
    with pytest.raises(InvalidRequest):
        limits_in(Limits(tokens_per_day=2**53))
