"""Projects: what people use models for together, under one budget."""

from datetime import datetime

from msgspec import Struct


class Project(Struct, frozen=True, kw_only=True):
    """`id` is the `project` of users, keys and records. `responsible` is the id of the user who answers for
    it. No key of it is valid after `expires_at`."""

    id: str
    created_at: datetime
    name: str
    responsible: str | None = None
    expires_at: datetime | None = None
    revision: int = 0

    def has_ended(self, now: datetime) -> bool:
        return self.expires_at is not None and self.expires_at <= now
