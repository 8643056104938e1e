"""Documents of a later version: read as far as they can be, told of once, and never believed."""

import logging
from typing import Any

import pytest

from llmgateway.domain.errors import Unavailable
from llmgateway.domain.keys import Key, Owner, is_valid
from llmgateway.domain.later import Reader
from llmgateway.domain.people import User
from tests.doubles import SetClock

NOW = SetClock().now()
KEY = {"id": "k", "digest": "d", "hint": "h", "user": "alice", "name": "n", "created_at": NOW}
USER = {"id": "alice", "created_at": NOW}


@pytest.fixture
def reader() -> Reader:
    return Reader(logging.getLogger("test.later"))


@pytest.mark.parametrize(
    ("changes", "told"),
    [({}, 0), ({"state": "suspended"}, 0), ({"state": "paused"}, 1), ({"lapsed": "expelled"}, 1),
     ({"roles": ["user", "auditor"]}, 1), ({"roles": ["root"], "state": "asleep"}, 2),
     ({"shoe_size": 44}, 0)],
)  # fmt: skip
def test_new_words_of_users_are_told_of_once(
    reader: Reader, changes: dict[str, Any], told: int, caplog: pytest.LogCaptureFixture
) -> None:
    users = [reader.read({**USER, **changes}, User) for _ in range(3)]
    user = users[0]
    assert len(caplog.messages) == told
    assert user.is_active == ("state" not in changes and "lapsed" not in changes)
    assert not user.is_operator


def test_a_key_with_a_new_word_is_not_valid(reader: Reader, caplog: pytest.LogCaptureFixture) -> None:
    assert is_valid(reader.read(KEY, Key), "d", NOW)
    for changes in ({"state": "resting"}, {"purpose": "robots"}):
        assert not is_valid(reader.read({**KEY, **changes}, Key), "d", NOW)
    assert len(caplog.messages) == 2


def test_roles_of_owners(reader: Reader, caplog: pytest.LogCaptureFixture) -> None:
    assert reader.read({"roles": ["auditor"]}, Owner).roles == ("auditor",)
    assert len(caplog.messages) == 1


def test_what_is_more_than_a_word_cannot_be_read(reader: Reader, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        with pytest.raises(Unavailable, match="later version"):
            reader.read({**KEY, "limits": {"images_per_day": 1}}, Key)
    assert len(caplog.messages) == 1
