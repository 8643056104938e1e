"""API keys: their format and checksum, what is stored of one, and the principal that a valid one proves.

    lgw_<id: 12 base62>_<secret: 43 base62>_<checksum: 6 base62>

The checksum is zlib's CRC-32 of all before the last underscore, in base62 padded left with `0`: a typo or a
made-up key is refused without any look-up.
"""

import hmac
import secrets
import zlib
from datetime import datetime
from typing import Any, Literal, get_args

from msgspec import Struct

from llmgateway.domain.limits import Limits

PREFIX = "lgw"
DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
ID_LENGTH, SECRET_LENGTH, CHECKSUM_LENGTH = 12, 43, 6  # 43 base62 digits hold 256 bits
LENGTH = len(PREFIX) + ID_LENGTH + SECRET_LENGTH + CHECKSUM_LENGTH + 3

State = Literal["active", "suspended", "revoked"]
Purpose = Literal["programs", "playground"]
PURPOSES = frozenset(get_args(Purpose))


class Key(Struct, frozen=True, kw_only=True):
    """What is stored of a key: never the key. `digest` is its HMAC in hex, `hint` its last four characters.

    `models` is None where every model is allowed. After a rotation `previous` is the digest of the key
    before, valid until `previous_until`. `purpose`: the portal's playground uses keys, too. `state` and
    `purpose` may be words of a later version: such a key is not valid.
    """

    id: str
    digest: str
    hint: str
    user: str
    name: str
    created_at: datetime
    project: str | None = None
    models: tuple[str, ...] | None = None
    limits: Limits = Limits()
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    state: str = "active"
    purpose: str = "programs"
    previous: str | None = None
    previous_until: datetime | None = None
    revision: int = 0


class Principal(Struct, frozen=True):
    """Who calls: proved by a key, valid at the time of the call. The limits are those that an operator gave
    this key and this user."""

    key_id: str
    user: str
    project: str | None
    models: frozenset[str] | None
    key_limits: Limits = Limits()
    user_limits: Limits = Limits()
    roles: tuple[str, ...] = ()

    def may_use(self, model: str) -> bool:
        return self.models is None or model in self.models


def mint() -> tuple[str, str]:
    """A new (id, key)."""
    key_id = "".join(secrets.choice(DIGITS) for _ in range(ID_LENGTH))
    return key_id, mint_for(key_id)


def mint_for(key_id: str) -> str:
    """A new key with a given id: what a rotation gives."""
    secret = "".join(secrets.choice(DIGITS) for _ in range(SECRET_LENGTH))
    body = f"{PREFIX}_{key_id}_{secret}"
    return f"{body}_{checksum(body)}"


def checksum(body: str) -> str:
    number, digits = zlib.crc32(body.encode()), ""
    for _ in range(CHECKSUM_LENGTH):
        number, digit = divmod(number, 62)
        digits = DIGITS[digit] + digits
    return digits


def id_of(token: bytes) -> str | None:
    """The id inside a well-formed key with the right checksum, else None. No secret is compared here."""
    if len(token) != LENGTH or not token.isascii():
        return None
    prefix, _, rest = token.decode("ascii").partition("_")
    key_id, _, rest = rest.partition("_")
    secret, _, check = rest.partition("_")
    if prefix != PREFIX or len(key_id) != ID_LENGTH or len(secret) != SECRET_LENGTH:
        return None
    if not (key_id + secret + check).isalnum():
        return None
    return key_id if hmac.compare_digest(check, checksum(f"{PREFIX}_{key_id}_{secret}")) else None


def digest_of(token: bytes, pepper: bytes) -> bytes:
    """HMAC-SHA-256 of the whole key: what is stored, and what a call is looked up by. 256 random bits need no
    slow hash."""
    return hmac.digest(pepper, token, "sha256")


def is_valid(key: Key, digest: str, now: datetime) -> bool:
    """Whether a call with this digest may pass as this key at this time."""
    proved = hmac.compare_digest(key.digest, digest)
    if (
        not proved
        and key.previous is not None
        and key.previous_until is not None
        and now < key.previous_until
    ):
        proved = hmac.compare_digest(key.previous, digest)
    is_in_force = key.state == "active" and key.purpose in PURPOSES
    return proved and is_in_force and (key.expires_at is None or now < key.expires_at)


def belongs(key: Key, digest: str) -> bool:
    """Whether this is what is stored of the key with this digest, or of the one after it."""
    is_it, is_previous = (hmac.compare_digest(one or "", digest) for one in (key.digest, key.previous))
    return is_it or is_previous


class Owner(Struct, frozen=True):
    """What a call needs of the key's user; caches hold it with the key. Whoever is not let in, for whatever
    reason, is suspended here."""

    state: str = "active"
    limits: Limits = Limits()
    roles: tuple[str, ...] = ()
    models: tuple[str, ...] | None = None


def with_owner(key: dict[str, Any], user: dict[str, Any] | None) -> dict[str, Any]:
    """A key's document as caches hold it. No key is made before its user, so one without a user is what an
    account has left behind that was ended."""
    if user is None:
        return {**key, "owner": {"state": "suspended"}}
    owner = {name: user[name] for name in Owner.__struct_fields__ if name in user}
    if user.get("lapsed") is not None or user.get("state", "active") != "active":
        owner["state"] = "suspended"
    return {**key, "owner": owner}


def principal_of(key: Key, owner: Owner) -> Principal:
    models = models_of(key.models, owner.models)
    return Principal(key.id, key.user, key.project, models, key.limits, owner.limits, owner.roles)


def models_of(key: tuple[str, ...] | None, user: tuple[str, ...] | None) -> frozenset[str] | None:
    """What both allow: no key may use more than its user. None where every model is allowed."""
    if key is None or user is None:
        either = key if user is None else user
        return None if either is None else frozenset(either)
    return frozenset(key) & frozenset(user)
