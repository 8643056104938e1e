"""Grants as fields of a user: what is given, and what giving nothing means."""

import msgspec

from llmgateway.control.granted import GRANTED, UNGRANTED, granted_fields, grants_in
from llmgateway.domain.people import User
from llmgateway.domain.policy import Grant


def test_nothing_granted_is_nothing_allowed() -> None:
    assert granted_fields(()) == {"roles": [], "project": None, "limits": {}, "models": []}
    assert granted_fields((Grant("model", "*", "r"),))["models"] is None


def test_the_fields_are_those_of_a_user() -> None:
    assert set(GRANTED) == set(UNGRANTED) == set(granted_fields(()))
    assert set(GRANTED) < set(User.__struct_fields__)


def test_grants_come_back() -> None:
    grants = (Grant("role", "user", "r"), Grant("limit", "tokens_per_day", "s", 5))
    assert msgspec.convert(grants_in(grants), tuple[Grant, ...]) == grants
