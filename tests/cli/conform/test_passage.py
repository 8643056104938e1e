"""Every check is seen to fail."""

import json
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from llmgateway.cli.conform.passage import CHECKS
from tests.cli.conform.conftest import Suffer, behind_each
from tests.lab.client import Answer
from tests.lab.exchange import Call
from tests.lab.gateway import Gateway
from tests.lab.ingress import Changed, Fault, Ingress, page


def says(name: str, value: str | None) -> Fault:
    return lambda call, answer: Changed(answer).header(name, value)


def without_streams_id(call: Call, answer: Answer) -> Answer:
    is_stream = b'"stream":true' in call.body
    return Changed(answer)(x_request_id=None) if is_stream else answer


def unknown(header: str) -> Fault:
    return lambda call, answer: Changed(answer)(status=401) if call.header(header) else answer


def redirects(call: Call, answer: Answer) -> Answer:
    elsewhere = "http://gateway.internal/v1/models"
    return Changed(answer)(status=301, location=elsewhere) if call.target.endswith("/") else answer


def knows_no_slash(call: Call, answer: Answer) -> Answer:
    return Changed(answer)(status=404) if call.target.endswith("/") else answer


def breaks_on(method: str) -> Fault:
    return lambda call, answer: page(500, "Internal Server Error") if call.method == method else answer


FAULTS: list[tuple[str, str, Fault, str]] = [
    ("passage.request-id", "failed", says("x-request-id", None), "none on a list of models, an error, an"),
    ("passage.request-id", "failed", without_streams_id, "none on a stream"),
    ("passage.request-id-kept", "differs", says("x-request-id", "1234"), "came 1234"),
    ("passage.llmgateway-id", "differs", says("x-llmgateway-id", None), "x-llmgateway-id"),
    ("passage.rate-limits", "failed", says("x-ratelimit-reset-requests", "1767225600"), "1767225600"),
    ("passage.rate-limits", "failed", says("x-ratelimit-limit-requests", "many"), "many"),
    ("passage.x-api-key", "differs", unknown("x-api-key"), "came 401"),
    ("passage.api-key", "differs", unknown("api-key"), "came 401"),
    ("passage.slash", "failed", redirects, "http://gateway.internal/v1/models"),
    ("passage.slash", "differs", knows_no_slash, "came 404"),
    ("passage.head", "failed", breaks_on("HEAD"), "expected 200 or 405 to HEAD; came 500 text/html"),
    ("passage.options", "failed", breaks_on("OPTIONS"), "came 500 text/html"),
    ("passage.keep-alive", "failed", says("connection", "close"), "came its end after 1 of 2 answers"),
]  # fmt: skip


@behind_each(FAULTS)
async def test_what_is_wrong_is_found(
    suffer: Suffer, check: str, result: str, fault: Fault, told: str
) -> None:
    found, said = (await suffer(check, fault))[check]
    assert found == result
    assert told in said


def test_every_check_is_seen_to_fail() -> None:
    assert {check for check, _, _, _ in FAULTS} | {"passage.tls"} == {name for name, _ in CHECKS}


@pytest.fixture
def over_tls(
    conforming: tuple[Gateway, str], conform: Callable[..., Any], tmp_path: Path
) -> Callable[..., Any]:
    """What is found over https, with a certificate for so many days and this name."""
    authority = trustme.CA()

    async def over_tls_(days: int, name: str, *, is_known: bool) -> dict[str, list[str]]:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        until = datetime.now(UTC) + timedelta(days=days)
        authority.issue_cert(name, not_after=until).configure_cert(tls)
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        async with Ingress(conforming[0].url, lambda _, answer: answer, tls=tls) as ingress:
            more = ["--ca", str(tmp_path / "ca.pem")] if is_known else []
            words = ["--only", "passage.tls,models.list", "--json", *more]
            _, said = await conform("--base-url", ingress.base_url, *words)
        return {row["check"]: [row["result"], row["told"]] for row in json.loads(said)["data"]}

    return over_tls_


async def test_a_certificate_is_verified(over_tls: Callable[..., Any]) -> None:
    found = await over_tls(30, "127.0.0.1", is_known=True)
    assert found["passage.tls"][0] == "ok"
    assert found["passage.tls"][1].startswith("verified; the certificate ends on ")


@pytest.mark.parametrize(("name", "is_known"), [("127.0.0.1", False), ("llm.example.org", True)])
async def test_one_that_is_not_to_be_trusted_ends_all(
    over_tls: Callable[..., Any], name: str, is_known: bool
) -> None:
    found = await over_tls(30, name, is_known=is_known)
    assert found["connection"][0] == "failed"
    assert "expected a certificate that is trusted" in found["connection"][1]
    assert found["models.list"] == ["skipped", "nothing answers there"]


async def test_one_that_ends_soon_fails(over_tls: Callable[..., Any]) -> None:
    found = await over_tls(3, "127.0.0.1", is_known=True)
    assert found["passage.tls"][0] == "failed"
