"""Checks of refusals: the right status in OpenAI's shape, and no page of what stands before the gateway."""

from collections.abc import Callable, Mapping, Sequence

from llmgateway.cli.conform.answers import CHAT, MODELS, NO_MODEL
from llmgateway.cli.conform.asking import JSON, Deployment, Line
from llmgateway.cli.conform.endings import Differs, Failed, Late, Skipped
from llmgateway.cli.conform.shapes import coded, refused, told
from llmgateway.domain.keys import mint

NOWHERE = "/conform-no-such-path"
LARGE = 1280 * 1024  # bytes; what ingresses let through by default is often 1 MiB
TOO_LARGE = 1 << 40  # bytes that are announced and never sent
SECONDS = 2.0  # for saying that it is too large, before any of it has come


def _strangers() -> dict[str, Mapping[str, str]]:
    return {
        "no key": {},
        "no key at all in it": {"authorization": "Bearer"},
        "a malformed key": {"authorization": "Bearer conform-no-such-key"},
        "an unknown key": {"authorization": f"Bearer {mint()[1]}"},
    }


def without_key(deployment: Deployment) -> str:
    coded(refused(deployment.get(MODELS, _strangers()["no key"]), 401), "invalid_api_key")
    return "401"


def unknown_key(deployment: Deployment) -> str:
    for name, headers in _strangers().items():
        try:
            coded(refused(deployment.get(MODELS, headers), 401), "invalid_api_key")
        except Differs:
            raise
        except Failed as failed:
            raise Failed(f"{failed.expected}, with {name}", failed.came) from None
    return "401"


def refused_alike(deployment: Deployment) -> str:
    """Who has no key learns nothing of keys."""
    said = {name: deployment.get(MODELS, headers) for name, headers in _strangers().items()}
    first, *others = said.items()
    for name, answer in others:
        if (answer.status, answer.body) != (first[1].status, first[1].body):
            raise Differs(f"the same answer to {name} as to {first[0]}", told(answer))
    return "all alike"


def unknown_model(deployment: Deployment) -> str:
    asked = {"model": NO_MODEL, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}
    coded(refused(deployment.post(CHAT, asked), 404), "model_not_found")
    return "404"


def bad_json(deployment: Deployment) -> str:
    return str(refused(deployment.post(CHAT, b'{"model": '), 400, 422).code)


def wrong_type(deployment: Deployment) -> str:
    complaint = refused(deployment.post(CHAT, {"model": 7, "messages": []}), 400, 422)
    if complaint.param != "model":
        raise Differs("the param model", complaint.param)
    return str(complaint.code)


def wrong_method(deployment: Deployment) -> str:
    answer = deployment.get(CHAT)
    refused(answer, 404, 405)
    if answer.status != 405:
        raise Differs("405", answer.status)
    return f"405, allowed: {answer.header('allow') or 'not told'}"


def unknown_path(deployment: Deployment) -> str:
    refused(deployment.get(NOWHERE), 404)
    return "404"


def large_body(deployment: Deployment) -> str:
    """A long conversation, or a picture in it; the model is unknown, so it costs nothing."""
    asked = {"model": NO_MODEL, "messages": [{"role": "user", "content": "x" * LARGE}]}
    answer = deployment.post(CHAT, asked)
    refused(answer, 404, 413, 400)
    return f"{LARGE // 1024} KiB " + ("are too large, said as an error" if answer.status == 413 else "pass")


def too_large(deployment: Deployment) -> str:
    headers = {**deployment.bearer(), "content-type": JSON, "content-length": str(TOO_LARGE)}
    try:
        with Line(deployment) as line:
            answer = line.ask("POST", CHAT, headers=headers, patience=SECONDS)
    except Late:
        raise Skipped(f"nothing is said within {SECONDS:g} s, before the body has come") from None
    refused(answer, 413)
    return "413"


def come_again(deployment: Deployment) -> str:
    """Of all answers so far."""
    busy = [answer for answer in deployment.seen if answer.status in (429, 503)]
    if not busy:
        raise Skipped("no answer said to come back later")
    for answer in busy:
        wait = answer.header("retry-after")
        if wait is None and answer.header("x-should-retry") is None:
            raise Failed("retry-after or x-should-retry", told(answer))
        if wait is not None and not (wait.isdecimal() and 0 < int(wait) <= 60):
            raise Differs("retry-after of 1 to 60 seconds, which all SDKs heed", wait)
    return f"on {len(busy)}"


CHECKS: Sequence[tuple[str, Callable[[Deployment], str]]] = (
    ("errors.no-key", without_key),
    ("errors.wrong-key", unknown_key),
    ("errors.keys-alike", refused_alike),
    ("errors.unknown-model", unknown_model),
    ("errors.bad-json", bad_json),
    ("errors.wrong-type", wrong_type),
    ("errors.method", wrong_method),
    ("errors.path", unknown_path),
    ("errors.large-body", large_body),
    ("errors.too-large", too_large),
)
