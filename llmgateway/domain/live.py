"""A call that is under way, as operators see it: who and where, never what is said."""

from datetime import datetime
from typing import Literal

from msgspec import Struct


class OpenCall(Struct, frozen=True, kw_only=True):
    """`user`, `key` and `project` are not known while it waits for its turn at a full model; `replica` once a
    target was chosen. `tokens` is how many the answer had when that was last looked at."""

    id: str
    at: datetime
    model: str
    stream: bool
    state: Literal["waiting", "open"]
    user: str | None = None
    key: str | None = None
    project: str | None = None
    endpoint: str | None = None
    replica: str | None = None
    tokens: int = 0
