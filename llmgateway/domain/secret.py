"""A secret: text that shows itself only to who asks for it by name."""

import hmac

from typing_extensions import override

MASK = "***"


class Secret:
    """In logs, tracebacks, f-strings and the repr of whatever holds it, a secret is `***`."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    @override
    def __repr__(self) -> str:
        return MASK

    @override
    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._text.encode(), other.reveal().encode())

    @override
    def __hash__(self) -> int:
        return hash((Secret, self._text))

    @override
    def __reduce__(self) -> str:
        raise TypeError("a secret is not pickled: it would be written in clear")
