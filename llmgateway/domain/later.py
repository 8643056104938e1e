"""Stored documents as values, also those that a later version of the gateway has written: a word that this
one does not know grants nothing, stays where it is, and is told of once."""

import logging
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeVar, get_args

import msgspec

from llmgateway.domain.errors import Unavailable
from llmgateway.domain.keys import Key, Owner, Purpose, State
from llmgateway.domain.people import Role, User, UserState
from llmgateway.domain.policy import Lapse

MOST_TOLD = 1000
WORDS: Final[Mapping[type, Mapping[str, tuple[str, ...]]]] = {
    Key: {"state": get_args(State), "purpose": get_args(Purpose)},
    User: {"state": get_args(UserState), "lapsed": get_args(Lapse), "roles": get_args(Role)},
    Owner: {"roles": get_args(Role)},
}

Kept = TypeVar("Kept", Key, User, Owner)


class Reader:
    """Whose `log` it is told to."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._told: set[tuple[str, str, str]] = set()

    def read(self, document: Mapping[str, Any], kind: type[Kept]) -> Kept:
        """Raises `Unavailable` for what is more than a new word."""
        try:
            value = msgspec.convert(document, kind)
        except msgspec.ValidationError as error:
            self._tell(kind.__name__, "document", str(error))
            raise Unavailable(
                "This was written by a later version of the gateway, and this one cannot read it."
            ) from None
        for field, word in _unknown(value):
            self._tell(kind.__name__, field, word)
        return value

    def _tell(self, *what: str) -> None:
        if what in self._told or len(self._told) >= MOST_TOLD:
            return
        kind, field, word = what
        self._told.add((kind, field, word))
        fields = {"kind": kind.lower(), "field": field, "value": word}
        self._log.warning(
            "a later version of the gateway wrote what this one does not know", extra={"fields": fields}
        )


def _unknown(value: Key | User | Owner) -> Iterator[tuple[str, str]]:
    for field, known in WORDS[type(value)].items():
        found = getattr(value, field)
        words = found if isinstance(found, tuple) else (found,)
        yield from ((field, word) for word in words if word is not None and word not in known)
