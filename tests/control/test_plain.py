"""Values as JSON has them."""

from datetime import UTC, datetime

import msgspec
import pytest
from bson import Int64

from llmgateway.control.plain import plain, view_of
from llmgateway.domain.projects import Project


def test_integers_of_other_kinds() -> None:
    assert msgspec.json.encode({"a": Int64(2**40)}, enc_hook=plain) == b'{"a":1099511627776}'
    with pytest.raises(TypeError):
        plain(object())


def test_times_to_the_second() -> None:
    made = datetime(2026, 11, 20, 12, 0, 0, 987_000, tzinfo=UTC)
    view = view_of(Project(id="lab", created_at=made, name="Lab"))
    assert (view["created_at"], view["expires_at"]) == ("2026-11-20T12:00:00Z", None)
