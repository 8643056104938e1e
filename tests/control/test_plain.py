"""Integers of drivers as JSON."""

import msgspec
import pytest
from bson import Int64

from llmgateway.control.plain import plain


def test_integers_of_other_kinds() -> None:
    assert msgspec.json.encode({"a": Int64(2**40)}, enc_hook=plain) == b'{"a":1099511627776}'
    with pytest.raises(TypeError):
        plain(object())
