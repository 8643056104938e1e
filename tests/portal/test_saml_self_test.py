"""What is checked before anybody signs in."""

import pytest
from typing_extensions import override

from llmgateway.domain.saml import Saml
from llmgateway.portal.saml import ServiceProvider
from llmgateway.portal.saml_guard import Proved, Refused
from llmgateway.portal.saml_self_test import check
from tests.lab.identity import new_pair

SAML = Saml(pairs=(new_pair(),), providers=())
URL = "https://gateway.example.org"


def test_s_saml_25_the_libraries_are_tried_before_they_are_trusted() -> None:
    check(ServiceProvider(SAML, URL), SAML)


class Gullible(ServiceProvider):
    """As libraries would be that do not fit each other: it reads without looking at signatures."""

    @override
    def prove(self, *asked: object) -> Proved:
        name = "alice" if b">alice<" in bytes(asked[1]) else "alicf"  # type: ignore[call-overload]  # bytes
        return Proved(id="", name_id=name, name_id_format="", session_index="", attributes={}, until=asked[3])  # type: ignore[arg-type]


class Deaf(ServiceProvider):
    @override
    def prove(self, *asked: object) -> Proved:
        raise Refused("everything")


def test_s_saml_25_libraries_that_believe_everything_are_found_out() -> None:
    with pytest.raises(Refused, match="believe a forged response"):
        check(Gullible(SAML, URL), SAML)


def test_s_saml_25_and_such_that_believe_nothing() -> None:
    with pytest.raises(Refused, match="everything"):
        check(Deaf(SAML, URL), SAML)
