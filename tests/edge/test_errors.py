"""The one table: every error has a status and a body that the SDKs can read."""

import json

import pytest

from llmgateway.domain import errors
from llmgateway.domain.errors import GatewayError
from llmgateway.edge.errors import STATUS, body_of, headers_of, status_of
from tests.domain.test_errors import family


def one_of(kind: type[GatewayError]) -> GatewayError:
    if kind is errors.UpstreamTimeout:
        return errors.UpstreamTimeout("idle", 3)
    if kind is errors.UpstreamFailed:
        return errors.UpstreamFailed("x", reason="reset")
    if kind is errors.UpstreamRefused:
        return errors.UpstreamRefused("x", status=422)
    return kind("x")


@pytest.mark.parametrize("kind", list(family(GatewayError)), ids=lambda kind: kind.__name__)
def test_every_error_has_a_status_and_a_body(kind: type[GatewayError]) -> None:
    error = one_of(kind)
    assert 400 <= status_of(error) <= 599
    body = json.loads(body_of(error))["error"]
    assert set(body) == {"message", "type", "param", "code"}
    assert isinstance(body["code"], str)
    assert isinstance(body["message"], str)


def test_the_table_names_only_errors_that_there_are() -> None:
    assert set(STATUS) <= set(family(GatewayError))


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.NotAuthenticated(), 401),
        (errors.ModelNotAllowed("m"), 403),
        (errors.NoSuchModel("m"), 404),
        (errors.InvalidJson("x"), 400),
        (errors.TooLarge("x"), 413),
        (errors.UnsupportedMedia("x"), 415),
        (errors.Conflict("x"), 409),
        (errors.StoreUnavailable("x"), 503),
        (errors.LedgerUnavailable("x"), 503),
        (errors.UpstreamFailed("x", reason="r"), 502),
        (errors.UpstreamTimeout("idle", 1), 504),
        (errors.UpstreamRefused("x", status=429), 429),
    ],
)
def test_statuses(error: GatewayError, status: int) -> None:
    assert status_of(error) == status


def test_the_type_of_a_refusal_follows_its_status() -> None:
    kinds = {
        s: json.loads(body_of(errors.UpstreamRefused("x", status=s)))["error"]["type"]
        for s in (400, 429, 503)
    }
    assert kinds == {400: "invalid_request_error", 429: "requests", 503: "server_error"}


def test_headers_tell_an_sdk_what_to_do() -> None:
    assert dict(headers_of(errors.Overloaded("x", retry_after=0.2)))[b"retry-after"] == b"1"
    assert dict(headers_of(errors.Conflict("x")))[b"x-should-retry"] == b"false"
    assert dict(headers_of(errors.NotAuthenticated()))[b"www-authenticate"] == b"Bearer"
    assert dict(headers_of(errors.TooLarge("x")))[b"connection"] == b"close"
    assert [name for name, _ in headers_of(errors.InvalidRequest("x"))] == [b"content-type"]
