"""Passwords: what may be one, one that chance makes, and what a right one proves."""

import secrets

from msgspec import Struct

from llmgateway.domain.errors import InvalidRequest
from llmgateway.domain.secret import Secret

SHORTEST, LONGEST = 10, 1000  # characters
LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"  # none that is taken for another when it is read aloud
GROUPS, GROUP_LENGTH = 4, 5  # of a random password: 100 bits


class SignedIn(Struct, frozen=True):
    """Who proved a password, and which state of the account it was the password of."""

    user: str
    revision: int


def password_in(value: Secret, login: str, param: str = "password") -> str:
    password = value.reveal()
    if not SHORTEST <= len(password) <= LONGEST:
        raise InvalidRequest("A password has at least 10 characters.", param=param)
    if password.lower() == login.strip().lower() or len(set(password)) < 4:
        raise InvalidRequest("That password is too easy to guess.", param=param)
    try:
        password.encode()
    except UnicodeError:
        raise InvalidRequest("That password cannot be written.", param=param) from None
    return password


def random_password() -> Secret:
    groups = ("".join(secrets.choice(LETTERS) for _ in range(GROUP_LENGTH)) for _ in range(GROUPS))
    return Secret("-".join(groups))
