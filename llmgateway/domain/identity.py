"""Who somebody is in the words of an organisation's identity provider."""

from collections.abc import Mapping

from msgspec import Struct

Attributes = Mapping[str, tuple[str, ...]]


class Identity(Struct, frozen=True, kw_only=True):
    """`provider` is the identity provider's entityID. `subject` is stable and never given to somebody else
    (pairwise-id, subject-id or what the operators chose), and is the `id` of the user here."""

    provider: str
    subject: str
    name: str | None = None
    email: str | None = None
    attributes: Attributes = {}
