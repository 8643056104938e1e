"""What people may write into keys and users."""

from msgspec import structs

from llmgateway.domain.entries import MOST_COUNTED
from llmgateway.domain.errors import InvalidRequest
from llmgateway.domain.limits import Limits
from llmgateway.domain.scalars import Wrong, text

NAME_LENGTH, ID_LENGTH = 100, 200
FOLLOWING = "/forget"
FOLLOWING_PROJECTS = ("/end", "/keys", "/members")
DOTS = ("", ".", "..")  # a client makes something else of a path that ends so


def name_in(value: str, param: str, longest: int = NAME_LENGTH) -> str:
    """A line of printable text, without the spaces around it."""
    try:
        name = text(value)
    except Wrong as wrong:
        raise InvalidRequest(f"{param} {wrong}.", param=param) from None
    if len(name) > longest:
        raise InvalidRequest(f"{param} must have at most {longest} characters, not {len(name)}.", param=param)
    return name


def optional_name(value: str | None, param: str, longest: int = NAME_LENGTH) -> str | None:
    return None if value is None else name_in(value, param, longest)


def user_id_in(value: str, param: str) -> str:
    """It stands in addresses of the API as their last part, but for what may follow it there."""
    name = name_in(value, param, ID_LENGTH)
    if name.endswith(FOLLOWING):
        raise InvalidRequest(f"{param} must not end in '{FOLLOWING}'.", param=param)
    if name.rpartition("/")[2] in DOTS:
        raise InvalidRequest(f"{param} must not end in '/', or in '.' or '..' alone.", param=param)
    return name


def project_id_in(value: str, param: str) -> str:
    """As a user's, since its own keys have one; no longer than what names a project elsewhere may be."""
    name = user_id_in(name_in(value, param), param)
    if name.endswith(FOLLOWING_PROJECTS):
        raise InvalidRequest(f"{param} must not end in {', '.join(FOLLOWING_PROJECTS)}.", param=param)
    return name


def email_in(value: str | None) -> str | None:
    address = optional_name(value, "email", 254)
    if address is not None and not all(address.partition("@")):
        raise InvalidRequest("email must be a mail address such as alice@example.org.", param="email")
    return address


def limits_in(limits: Limits | None, param: str = "limits") -> Limits:
    """None is no limit at all. The state store counts in doubles, so there is a largest number."""
    for name, value in structs.asdict(limits or Limits()).items():
        if value is not None and value > MOST_COUNTED:
            raise InvalidRequest(f"{param}.{name} must be at most {MOST_COUNTED}.", param=f"{param}.{name}")
    return limits or Limits()
