"""Checks of what stands before a gateway: does it pass headers, keys and paths on, and keep connections."""

import re
import ssl
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from secrets import token_hex

import msgspec

from llmgateway.cli.conform.answers import CHAT, MODELS, NO_MODEL, whole_answer
from llmgateway.cli.conform.asking import Deployment, Line
from llmgateway.cli.conform.endings import Differs, Failed, Skipped
from llmgateway.cli.conform.shapes import told
from llmgateway.cli.conform.streams import counted_stream
from llmgateway.domain.ports import SystemClock

REQUEST_ID, OUR_ID = "x-request-id", "x-llmgateway-id"
RATE = "x-ratelimit-"
SOON = timedelta(days=7)  # by then whatever renews it should have
DURATION = re.compile(r"(\d+h)?(\d+m)?(\d+(\.\d+)?s)?(\d+(\.\d+)?ms)?")


def trusted(deployment: Deployment) -> str:
    """One that is not to be trusted ends every request, so what is left to look at is how long it lasts."""
    if deployment.base.scheme != "https":
        raise Skipped("the address is not https")
    certificate = deployment.once("models", lambda: deployment.get(MODELS)).certificate
    assert certificate is not None, "it is verified"
    end = datetime.fromtimestamp(ssl.cert_time_to_seconds(certificate["notAfter"]), UTC)
    if end - SystemClock.now() < SOON:
        raise Failed(f"a certificate for more than {SOON.days} days", f"one that ends on {end:%Y-%m-%d}")
    return f"verified; the certificate ends on {end:%Y-%m-%d}"


def kept_alive(deployment: Deployment) -> str:
    """Also after an error, whose body has to be read to its end by all in between."""
    asked = msgspec.json.encode({"model": NO_MODEL, "messages": []})
    with Line(deployment) as line:
        for number in range(2):
            line.ask("POST", CHAT, asked)
            if not line.is_open:
                raise Failed("a connection that stays open", f"its end after {number + 1} of 2 answers")
        line.ask("GET", MODELS)
    return "3 requests on one connection"


def named(deployment: Deployment) -> str:
    """SDKs show it in their errors: it is what a person can report."""
    answers = {
        "a list of models": deployment.once("models", lambda: deployment.get(MODELS)),
        "an error": deployment.get(f"{MODELS}/{NO_MODEL}"),
        "an answer": whole_answer(deployment),
        "a stream": counted_stream(deployment),
    }
    without = [name for name, answer in answers.items() if not answer.header(REQUEST_ID)]
    if without:
        raise Failed(f"{REQUEST_ID} on every answer", f"none on {', '.join(without)}")
    return "on every answer"


def named_by_caller(deployment: Deployment) -> str:
    name = f"conform-{token_hex(8)}"
    for path in (MODELS, f"{MODELS}/{NO_MODEL}"):
        found = deployment.get(path, {**deployment.bearer(), REQUEST_ID: name}).header(REQUEST_ID)
        if found != name:
            raise Differs(f"the caller's {REQUEST_ID}", found)
    return "the caller's is kept"


def in_ledger(deployment: Deployment) -> str:
    for answer in (whole_answer(deployment), counted_stream(deployment)):
        if answer.header(OUR_ID) is None:
            raise Differs(f"{OUR_ID}, the id in this gateway's ledger", None)
    return "on calls"


def rated(deployment: Deployment) -> str:
    headers = {name: value for name, value in whole_answer(deployment).headers if name.startswith(RATE)}
    if not headers:
        raise Skipped("no limit is told of")
    for name, value in headers.items():
        is_reset = name.startswith(f"{RATE}reset-")
        if not (DURATION.fullmatch(value) if is_reset else value.isdecimal()):
            raise Failed("numbers, and durations such as 6m0s", f"{name}: {value}")
    return f"{len(headers)} headers"


def x_api_key(deployment: Deployment) -> str:
    return _taken(deployment, "x-api-key")


def api_key(deployment: Deployment) -> str:
    return _taken(deployment, "api-key")


def _taken(deployment: Deployment, header: str) -> str:
    answer = deployment.get(MODELS, deployment.key_as(header))
    if answer.status != 200:
        raise Differs(f"200 with the key as {header}", told(answer))
    return "taken"


def slashed(deployment: Deployment) -> str:
    answer = deployment.get(f"{MODELS}/")
    if 300 <= answer.status < 400:
        raise Failed("an answer at the path with a slash", f"{answer.status} to {answer.header('location')}")
    if answer.status != 200:
        raise Differs("200 at the path with a slash", told(answer))
    return "200"


def headed(deployment: Deployment) -> str:
    """And the connection goes on: a body here would be taken for the next answer."""
    with Line(deployment) as line:
        answer = line.ask("HEAD", MODELS)
        if answer.status not in (200, 405):
            raise Failed("200 or 405 to HEAD", told(answer))
        if line.is_open and line.ask("GET", MODELS).status != 200:
            raise Failed("200 to the request after HEAD", "something else")
    return str(answer.status)


def optioned(deployment: Deployment) -> str:
    """Browsers ask so before they call from a page of another site."""
    answer = deployment.ask("OPTIONS", CHAT)
    if answer.status >= 500 or answer.media_type == "text/html":
        raise Failed("an answer to OPTIONS that is neither a failure nor HTML", told(answer))
    return str(answer.status)


CHECKS: Sequence[tuple[str, Callable[[Deployment], str]]] = (
    ("passage.request-id", named),
    ("passage.request-id-kept", named_by_caller),
    ("passage.llmgateway-id", in_ledger),
    ("passage.rate-limits", rated),
    ("passage.x-api-key", x_api_key),
    ("passage.api-key", api_key),
    ("passage.slash", slashed),
    ("passage.head", headed),
    ("passage.options", optioned),
    ("passage.keep-alive", kept_alive),
    ("passage.tls", trusted),
)
