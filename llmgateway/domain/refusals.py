"""A call that was refused before it was accepted, as its people see it."""

from datetime import datetime

from msgspec import Struct


class Refusal(Struct, frozen=True, kw_only=True):
    """`message` is what the program was told; `key` the id of the key that it called with."""

    at: datetime
    status: int
    code: str
    message: str
    request_id: str
    key: str
