"""What people write, read strictly: a reader takes one written value and returns it typed, or objects.

Values come as text (environment, YAML) or as JSON's numbers and booleans; both are read alike and exactly.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import TypeVar
from urllib.parse import SplitResult, unquote, urlsplit

from llmgateway.domain.errors import shown
from llmgateway.domain.secret import MASK

NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,2})?")
LEADING_ZERO = re.compile(r"[+-]?0[0-9_]")
DIGITS_KEPT = 28  # what a Decimal product keeps exactly
VISIBLE = re.compile(r"[!-~]+")
HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\.?|[0-9A-Fa-f:.]+")
NAME_REFUSED = frozenset("\\?#%;")
NAME_LENGTH = 200
LONGEST = 7 * 86_400  # seconds; a longer wait is a typing error
SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)")
UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}

T = TypeVar("T")
Reader = Callable[[object], T]


class Wrong(ValueError):
    """A written value that cannot be; the message follows the value's name."""


class Filled(str):
    """Text filled in from the environment or a file: it may be a secret, so complaints do not show it."""

    __slots__ = ()


def described(value: object) -> str:
    """A value as complaints show it."""
    if isinstance(value, Filled):
        return MASK
    if isinstance(value, str):
        return f"'{shown(value, 60)}'"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, Mapping | list | tuple):
        return "a mapping" if isinstance(value, Mapping) else "a list"
    return shown(str(value), 60)


def text(value: object) -> str:
    if isinstance(value, bool):
        raise Wrong(f'must be text, not {described(value)}; a word goes in quotes: "{described(value)}"')
    if not isinstance(value, str):
        raise Wrong(f"must be text, not {described(value)}")
    written = value.strip()
    if not written:
        raise Wrong("must not be empty")
    if not written.isprintable():
        raise Wrong("must not hold control characters")
    return written


def number(value: object) -> Decimal:
    """Exact: a float is what it prints as."""
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise Wrong(f"must be a number, not {described(value)}")
    written = repr(value) if isinstance(value, float) else str(value).strip()
    if LEADING_ZERO.match(written):
        raise Wrong(f"must be a number without leading zeros, not {described(value)} (some read it as octal)")
    if not NUMBER.fullmatch(written):
        raise Wrong(f"must be a number, not {described(value)}")
    exact = Decimal(written)
    if len(exact.as_tuple().digits) > DIGITS_KEPT:
        raise Wrong(f"must be a number of at most {DIGITS_KEPT} digits")
    return exact


def whole(least: int, most: int) -> Reader[int]:
    def read(value: object) -> int:
        exact = number(value)
        if not least <= exact <= most or exact != exact.to_integral_value():
            raise Wrong(f"must be a whole number from {least} to {most}, not {described(value)}")
        return int(exact)

    return read


def seconds(value: object) -> float:
    exact = number(value)
    if not 0 < exact <= LONGEST:
        raise Wrong(f"must be more than 0 and at most {LONGEST} seconds, not {described(value)}")
    return float(exact)


def seconds_or_none_at_all(value: object) -> float:
    return 0.0 if number(value) == 0 else seconds(value)


def size(least: int, most: int) -> Reader[int]:
    """Bytes, written with or without a unit."""

    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise Wrong(f"must be a size such as 10MiB, 20MB or a number of bytes, not {described(value)}")
        parts = SIZE.fullmatch(str(value).strip())
        if parts is None or parts[2].lower() not in UNITS:
            raise Wrong(f"must be a size such as 10MiB, 20MB or a number of bytes, not {described(value)}")
        exact = number(parts[1]) * UNITS[parts[2].lower()]
        if not least <= exact <= most or exact != exact.to_integral_value():
            raise Wrong(f"must be a whole number of bytes from {least} to {most}, not {described(value)}")
        return int(exact)

    return read


def flag(value: object) -> bool:
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    if not isinstance(value, bool):
        raise Wrong(f"must be true or false, not {described(value)}")
    return value


def one_of(choices: Sequence[str]) -> Reader[str]:
    def read(value: object) -> str:
        if isinstance(value, str) and value.strip().lower() in choices:
            return value.strip().lower()
        raise Wrong(f"must be {' or '.join(choices)}, not {described(value)}")

    return read


def listed(read: Reader[T]) -> Reader[tuple[T, ...]]:
    """Several of a kind, with commas between them."""

    def read_all(value: object) -> tuple[T, ...]:
        found = tuple(read(part) for part in text(value).split(",") if part.strip())
        if len(set(found)) != len(found):
            raise Wrong("must not name the same twice")
        return found

    return read_all


def model_name(value: object) -> str:
    """An id or alias: it stands in URLs as it is, so nothing that changes its meaning there may be in it."""
    written = text(value)
    if len(written) > NAME_LENGTH:
        raise Wrong(f"must have at most {NAME_LENGTH} characters, not {len(written)}")
    if not VISIBLE.fullmatch(written) or not NAME_REFUSED.isdisjoint(written):
        raise Wrong(rf"must be printable ASCII without spaces and \ ? # % ;, not {described(value)}")
    if any(part in ("", ".", "..") for part in written.split("/")):
        raise Wrong(f"must have no empty, '.' or '..' part between slashes, not {described(value)}")
    return written


def credential(value: object) -> str:
    """A bearer credential: it goes into a header line, so it holds nothing that could end it."""
    written = text(value)
    if not VISIBLE.fullmatch(written):
        raise Wrong("must be printable ASCII without spaces")
    if written == MASK:
        raise Wrong(f"is the mask {MASK} that stands for a credential, not a credential")
    return written


def http_url(value: object) -> str:
    """A base address to join paths to, without a slash at its end. Complaints do not show what was written:
    it may hold a password."""
    written = text(value)
    if not VISIBLE.fullmatch(written) or "\\" in written:
        raise Wrong("must be printable ASCII without spaces and backslashes")
    parts = _split(written)
    if parts.scheme not in ("http", "https"):
        raise Wrong("must begin with http:// or https://")
    if "@" in parts.netloc:
        raise Wrong("must hold no user name or password")
    if "?" in written or "#" in written:
        raise Wrong("must hold no query ('?') and no fragment ('#')")
    if not HOST.fullmatch(parts.hostname or ""):
        raise Wrong("must name a host, such as http://10.0.0.7:8000/v1")
    if any(unquote(part) in (".", "..") for part in parts.path.split("/")):
        raise Wrong("must hold no '.' or '..' between slashes")
    return f"{parts.scheme}://{parts.netloc.lower()}{parts.path.rstrip('/')}"


def _split(written: str) -> SplitResult:
    try:
        parts = urlsplit(written)
        port = parts.port
    except ValueError:
        raise Wrong("must be a URL with a host and perhaps a port, such as http://10.0.0.7:8000/v1") from None
    if port == 0 or parts.netloc.endswith(":"):
        raise Wrong("must have a port from 1 to 65535, or none")
    return parts
