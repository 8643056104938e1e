"""Keys: a format that a typo does not survive, and the conditions under which a digest is somebody."""

import zlib
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from llmgateway.domain import keys
from llmgateway.domain.keys import Key
from llmgateway.domain.limits import Limits

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
PEPPER = b"p" * 32


def base62(number: int) -> str:
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    text = ""
    while number:
        text, number = digits[number % 62] + text, number // 62
    return text.rjust(6, "0")


def test_the_parts_of_a_key() -> None:
    key_id, token = keys.mint()
    prefix, id, secret, check = token.split("_")
    assert (prefix, id, len(id), len(secret), len(check)) == ("lgw", key_id, 12, 43, 6)
    assert check == base62(zlib.crc32(token.rpartition("_")[0].encode()))
    assert keys.id_of(token.encode()) == key_id


def test_no_single_wrong_character_is_taken() -> None:
    _, token = keys.mint()
    for at, right in enumerate(token):
        wrong = token[:at] + ("a" if right != "a" else "b") + token[at + 1 :]
        assert keys.id_of(wrong.encode()) is None, at


@pytest.mark.parametrize(
    "token",
    [
        b"",
        b"lgw",
        b"lgw_",
        b"lgw___",
        b"sk-" + b"a" * 64,
        b"' OR 1=1--",
        b'{"$ne":null}',
        b"\r\nSET x 1\r\n",
        b"*" * 67,
        b"\x00" * 67,
        "lgw_\u0661".encode() + b"a" * 60,
        b"a" * 1_048_576,
        b"lgw_" + b"_" * 63,
    ],
)
def test_what_is_no_key(token: bytes) -> None:
    assert keys.id_of(token) is None


@pytest.mark.parametrize(("id", "secret"), [
    ("a" * 11, "b" * 44), ("a" * 13, "b" * 42), ("a" * 12, "b" * 44), ("a" * 12, "b" * 42),
    ("a" * 11, "b" * 43), ("a" * 11 + "-", "b" * 43), ("a" * 12, "b" * 42 + " "), ("a" * 12, "b" * 41 + "é"),
])  # fmt: skip
def test_a_right_checksum_makes_no_key(id: str, secret: str) -> None:
    body = f"lgw_{id}_{secret}"
    assert keys.id_of(f"{body}_{keys.checksum(body)}".encode()) is None


def test_white_space_is_no_part_of_a_key() -> None:
    _, token = keys.mint()
    assert keys.id_of(f"{token}\n".encode()) is None
    assert keys.id_of(f" {token}".encode()) is None


def stored(token: str, **changes: object) -> Key:
    fields: dict[str, object] = {
        "id": "k",
        "digest": keys.digest_of(token.encode(), PEPPER).hex(),
        "hint": token[-4:],
        "user": "alice",
        "name": "laptop",
        "created_at": NOON,
    }
    return Key(**{**fields, **changes})  # type: ignore[arg-type]


def test_a_digest_depends_on_the_pepper() -> None:
    assert keys.digest_of(b"x", PEPPER) != keys.digest_of(b"x", b"q" * 32)
    assert len(keys.digest_of(b"x", PEPPER)) == 32


def test_when_a_key_is_valid() -> None:
    _, token = keys.mint()
    digest = keys.digest_of(token.encode(), PEPPER).hex()
    assert keys.is_valid(stored(token), digest, NOON)
    assert not keys.is_valid(stored(token), keys.digest_of(b"other", PEPPER).hex(), NOON)
    assert not keys.is_valid(stored(token, state="suspended"), digest, NOON)
    assert not keys.is_valid(stored(token, state="revoked"), digest, NOON)
    assert keys.is_valid(stored(token, expires_at=NOON + timedelta(seconds=1)), digest, NOON)
    assert not keys.is_valid(stored(token, expires_at=NOON), digest, NOON)


def test_both_keys_are_valid_while_a_rotation_overlaps() -> None:
    old, new = keys.mint_for("a" * 12), keys.mint_for("a" * 12)
    before = keys.digest_of(old.encode(), PEPPER).hex()
    rotated = stored(new, previous=before, previous_until=NOON)
    assert keys.is_valid(rotated, before, NOON - timedelta(seconds=1))
    assert not keys.is_valid(rotated, before, NOON)
    assert keys.is_valid(rotated, rotated.digest, NOON)
    strange = keys.digest_of(b"other", PEPPER).hex()
    assert not keys.is_valid(rotated, strange, NOON - timedelta(seconds=1))


def test_a_principal_may_use_what_its_key_names() -> None:
    _, token = keys.mint()
    assert keys.principal_of(stored(token), keys.Owner()).may_use("anything")
    narrow = keys.principal_of(stored(token, models=("a",)), keys.Owner())
    assert narrow.may_use("a")
    assert not narrow.may_use("b")


def test_a_principal_brings_the_limits_of_its_key_and_of_its_user() -> None:
    _, token = keys.mint()
    user = {"id": "alice", "state": "active", "limits": {"tokens_per_day": 5}, "roles": ["user"], "name": "A"}
    cached = keys.with_owner({"id": "k"}, user)
    assert cached["owner"] == {"state": "active", "limits": {"tokens_per_day": 5}, "roles": ["user"]}
    key = stored(token, limits=Limits(requests_per_minute=1))
    principal = keys.principal_of(key, msgspec.convert(cached["owner"], keys.Owner))
    assert principal.key_limits == Limits(requests_per_minute=1)
    assert (principal.user_limits, principal.roles) == (Limits(tokens_per_day=5), ("user",))


def test_a_key_of_nobody_is_suspended() -> None:
    """As that of an account which was ended while the key was made."""
    assert keys.with_owner({"id": "k"}, None)["owner"] == {"state": "suspended"}


@pytest.mark.parametrize(
    ("key", "user", "both"),
    [
        (None, None, None),
        (("a",), None, {"a"}),
        (None, ("a",), {"a"}),
        (("a", "b"), ("b", "c"), {"b"}),
        (("a",), (), set()),
        (None, (), set()),
    ],
)
def test_no_key_may_use_more_than_its_user(
    key: tuple[str, ...] | None, user: tuple[str, ...] | None, both: set[str] | None
) -> None:
    _, token = keys.mint()
    assert keys.principal_of(stored(token, models=key), keys.Owner(models=user)).models == both


def test_whom_the_policy_shut_out_is_suspended() -> None:
    user = {"id": "alice", "state": "active", "lapsed": "absent", "models": ["a"]}
    assert keys.with_owner({"id": "k"}, user)["owner"] == {"state": "suspended", "models": ["a"]}
    assert keys.with_owner({"id": "k"}, {**user, "lapsed": None})["owner"]["state"] == "active"
