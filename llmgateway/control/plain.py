"""Values as JSON has them."""

from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from llmgateway.control.moments import to_the_second


def plain(value: object) -> object:
    """For what the encoder does not know: drivers have kinds of integers of their own."""
    if isinstance(value, int):
        return int(value)
    raise TypeError(f"no JSON for {type(value).__name__}")


def view_of(value: Struct) -> dict[str, Any]:
    """As JSON, its times to the second."""
    view: dict[str, Any] = msgspec.to_builtins(value, builtin_types=(datetime,), enc_hook=plain)
    return {
        name: to_the_second(field) if isinstance(field, datetime) else field for name, field in view.items()
    }
