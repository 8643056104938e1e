"""Which requests count as our own pages'."""

import pytest

from llmgateway.portal.origin import Origins
from tests.portal.asking import request_of

PUBLIC, LOCAL = Origins("https://llm.example.org"), Origins("http://127.0.0.1:8080")
HOME, HERE = "llm.example.org", "127.0.0.1:8080"
SITE, ORIGIN = "sec-fetch-site", "origin"


@pytest.mark.parametrize(
    ("origins", "host", "is_at_home"),
    [
        (PUBLIC, HOME, True),
        (PUBLIC, "LLM.example.org:443", True),
        (PUBLIC, "llm.example.org:8443", False),
        (PUBLIC, "evil.example", False),
        (PUBLIC, "127.0.0.1:8080", False),
        (LOCAL, HERE, True),
        (LOCAL, "localhost:9999", True),
        (LOCAL, "[::1]:8080", True),
        (LOCAL, "rebound.example:8080", False),
        (LOCAL, "127.0.0.1.evil.example", False),
        (LOCAL, "[broken", False),
        (LOCAL, "", False),
    ],
)
def test_only_our_own_names_are_home(origins: Origins, host: str, is_at_home: bool) -> None:
    """Another's name that leads here (DNS rebinding) would make its pages ours."""
    assert origins.is_at_home(request_of(host=host)) is is_at_home
    assert origins.is_from_our_page(request_of((SITE, "same-origin"), host=host)) is is_at_home


@pytest.mark.parametrize(
    ("headers", "is_ours"),
    [
        ([(SITE, "same-origin"), (ORIGIN, f"https://{HOME}")], True),
        ([(SITE, "same-origin")], True),
        ([(ORIGIN, f"https://{HOME}")], True),
        ([], False),
        ([(SITE, "cross-site")], False),
        ([(SITE, "same-site")], False),
        ([(SITE, "none")], False),
        ([(SITE, "cross-site"), (ORIGIN, f"https://{HOME}")], False),
        ([(SITE, "same-origin"), (SITE, "same-origin")], False),
        ([(ORIGIN, "null")], False),
        ([(SITE, "same-origin"), (ORIGIN, "null")], False),
        ([(ORIGIN, f"http://{HOME}")], False),
        ([(ORIGIN, f"https://{HOME}.evil.example")], False),
        ([(ORIGIN, f"https://other.{HOME}")], False),
        ([(ORIGIN, "https://evil.example")], False),
        ([(ORIGIN, f"https://{HOME}"), (ORIGIN, "https://evil.example")], False),
    ],
)
def test_s_csrf_01_only_our_own_pages_may_change_something(
    headers: list[tuple[str, str]], is_ours: bool
) -> None:
    asked = request_of(*headers, host=HOME, method="POST")
    assert PUBLIC.is_from_our_page(asked) is is_ours
    assert PUBLIC.is_asked_for(asked) is is_ours


def test_another_port_of_this_machine_is_another_site() -> None:
    assert LOCAL.is_from_our_page(request_of((ORIGIN, "http://127.0.0.1:8080"), host=HERE, method="POST"))
    assert not LOCAL.is_from_our_page(request_of((ORIGIN, "http://127.0.0.1:3000"), host=HERE, method="POST"))
    assert not LOCAL.is_from_our_page(request_of((ORIGIN, "http://localhost:8080"), host=HERE, method="POST"))


def test_reading_is_open_to_who_typed_the_address_and_closed_to_other_sites() -> None:
    assert PUBLIC.is_asked_for(request_of(host=HOME))
    assert PUBLIC.is_asked_for(request_of((SITE, "none"), host=HOME))
    assert not PUBLIC.is_asked_for(request_of((SITE, "cross-site"), host=HOME))
    assert not PUBLIC.is_asked_for(request_of((SITE, "none"), host="evil.example"))
