"""`llmgateway conform`: every check in its turn, and what came of it."""

import math
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

import msgspec
from msgspec import Struct

from llmgateway.cli.conform import answers, errors, passage, streams
from llmgateway.cli.conform.asking import Answer, Deployment
from llmgateway.cli.conform.endings import Broken, Differs, Failed, Skipped
from llmgateway.cli.conform.shapes import DONE, EVENT_STREAM, Usage, data_in
from llmgateway.cli.options import Arguments
from llmgateway.cli.printing import counted, first_line, say, say_json
from llmgateway.domain.errors import InvalidRequest, shown
from llmgateway.domain.scalars import VISIBLE
from llmgateway.domain.secret import Secret

FINE, TROUBLE = 0, 1
LONGEST = 160  # characters of what came that are told
STANDARD_INPUT = "-"

Check = Callable[[Deployment], str]
CHECKS: Sequence[tuple[str, Check]] = (
    *answers.CHECKS,
    *streams.CHECKS,
    *errors.CHECKS,
    *passage.CHECKS,
    ("errors.come-again", errors.come_again),
)
WIDTH = max(len(name) for name, _ in CHECKS)


class Row(Struct, frozen=True):
    check: str
    result: str
    told: str
    ms: int


class _Spent(Struct, frozen=True):
    usage: Usage | None = None


def conform(arguments: Arguments) -> int:
    """1 where a check failed; what is skipped or differs only from this gateway's own ways is fine."""
    checks = checks_of(arguments.only)
    deployment = deployment_of(arguments)
    rows = []
    for row in results(deployment, checks):
        rows.append(row)
        if not arguments.as_json:
            say(f"{row.check.ljust(WIDTH)}  {row.result.ljust(7)}  {row.ms:>6,} ms  {row.told}")
    failed = sum(row.result == "failed" for row in rows)
    usage = [one for answer in deployment.seen if (one := _usage_of(answer)) is not None]
    prompt, completion = sum(one.prompt_tokens for one in usage), sum(one.completion_tokens for one in usage)
    if arguments.as_json:
        say_json({
            "base_url": deployment.base.geturl(), "model": deployment.chosen, "is_fine": not failed,
            "requests": len(deployment.seen), "tokens": {"prompt": prompt, "completion": completion},
            "data": rows, "next": None,
        })  # fmt: skip
    else:
        spent = f"{counted(len(deployment.seen), 'request')}, {counted(prompt + completion, 'token')}"
        say(f"\n{_summary(rows, failed)} {spent} of {deployment.chosen or 'no model'}, as far as it told.")
    return TROUBLE if failed else FINE


def results(deployment: Deployment, checks: Sequence[tuple[str, Check]]) -> Iterator[Row]:
    """The models come first, whatever is asked for: one of them is what all others ask."""
    gone = ""
    try:
        with suppress(Differs, Skipped):
            answers.listed(deployment)
    except Broken as broken:
        gone = "nothing answers there"
        yield _row(deployment, "connection", 0, "failed", broken)
    except Failed:
        pass  # the check of its own tells
    for name, check in checks:
        if gone:
            yield Row(name, "skipped", gone, 0)
        else:
            yield _made(deployment, name, check)


def _made(deployment: Deployment, name: str, check: Check) -> Row:
    began = time.monotonic()
    ending: Exception | None = None
    try:
        told = check(deployment)
    except (Failed, Skipped) as error:
        told, ending = str(error), error
    ms = round((time.monotonic() - began) * 1000)
    if isinstance(ending, Failed):
        return _row(deployment, name, ms, "differs" if isinstance(ending, Differs) else "failed", ending)
    return Row(name, "ok" if ending is None else "skipped", shown(deployment.without_key(told), LONGEST), ms)


def _row(deployment: Deployment, name: str, ms: int, result: str, failed: Failed) -> Row:
    came = shown(" ".join(deployment.without_key(failed.came).split()), LONGEST)
    hint = ""
    if name == answers.CHECKS[0][0] and not deployment.base.path.endswith("/v1"):
        hint = "; base URLs end in /v1"
    return Row(name, result, f"expected {failed.expected}; came {came}{hint}", ms)


def _usage_of(answer: Answer) -> Usage | None:
    last = answer.body
    if answer.media_type == EVENT_STREAM:
        last = next((data for data in reversed(data_in(answer)) if data != DONE), b"")
    try:
        return msgspec.json.decode(last, type=_Spent).usage
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _summary(rows: Sequence[Row], failed: int) -> str:
    if failed:
        return f"{failed} of {counted(len(rows), 'check')} failed."
    differs = sum(row.result == "differs" for row in rows)
    return "All is well." if not differs else f"All is well for SDKs; {counted(differs, 'check')} differed."


# --- what is given ---


def deployment_of(arguments: Arguments) -> Deployment:
    base = base_of(arguments.base_url)
    made = Deployment(
        base, key_of(arguments), model=arguments.model, timeout=arguments.timeout,
        tls=trust_of(arguments.ca) if base.scheme == "https" else None,
    )  # fmt: skip
    made.silence = arguments.silence
    return made


def trust_of(path: str | None) -> ssl.SSLContext:
    """The system's, and what is given; there is no way to trust everybody."""
    tls = ssl.create_default_context()
    if path is not None:
        try:
            tls.load_verify_locations(cafile=path)
        except (OSError, ssl.SSLError) as error:
            raise InvalidRequest(f"--ca: {shown(path)} holds no certificates: {error.strerror}.") from None
    return tls


def base_of(text: str) -> SplitResult:
    try:
        base = urlsplit(text.rstrip("/"))
        is_whole = bool(base.hostname) and base.port != 0
    except ValueError:
        raise InvalidRequest("--base-url is no URL.") from None
    if base.scheme not in ("http", "https") or not is_whole or not VISIBLE.fullmatch(text):
        raise InvalidRequest("--base-url must be a URL such as https://llm.example.org/v1.")
    if base.query or base.fragment or base.username is not None:
        raise InvalidRequest("--base-url must have neither a query nor a user in it.")
    return base


def key_of(arguments: Arguments) -> Secret:
    """Complaints never show it."""
    if arguments.key_file is not None:
        try:
            text = Path(arguments.key_file).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise InvalidRequest(f"--key-file: {arguments.key_file} cannot be read: {why}.") from None
    else:
        text = first_line("Key: ") if arguments.key == STANDARD_INPUT else arguments.key
    key = text.strip()
    if not VISIBLE.fullmatch(key):
        raise InvalidRequest("The key is empty, or holds spaces or characters that no key has.")
    return Secret(key)


def checks_of(only: str | None) -> Sequence[tuple[str, Check]]:
    """All, or those that are named, single or by their group."""
    if only is None:
        return CHECKS
    words = [word.strip() for word in only.split(",") if word.strip()]
    groups = dict.fromkeys(name.partition(".")[0] for name, _ in CHECKS)
    for word in words or [""]:
        if word not in groups and word not in dict(CHECKS):
            names = ", ".join([*groups, *dict(CHECKS)])
            raise InvalidRequest(f"--only: there is no check '{shown(word)}', only: {names}.")
    return [(name, check) for name, check in CHECKS if name in words or name.partition(".")[0] in words]


def seconds(text: str) -> float:
    """Of an option; raises `ValueError`."""
    number = float(text)
    if not math.isfinite(number) or not 0 < number <= 3600:
        raise ValueError(text)
    return number


def add_options(parser: Any) -> None:
    parser.add_argument("--base-url", required=True, metavar="URL", help="what SDKs are given; ends in /v1")
    key = parser.add_mutually_exclusive_group(required=True)
    key.add_argument("--key", help="an API key, or - for the first line of the input: "
                     "others on this machine see what stands in a command")  # fmt: skip
    key.add_argument("--key-file", metavar="PATH", help="a file that holds it")
    parser.add_argument("--model", metavar="ID",
                        help="what to ask; echo by default, which costs nothing, else the first")  # fmt: skip
    parser.add_argument("--only", metavar="NAMES", help="checks or their groups, with commas between them")
    parser.add_argument("--timeout", type=seconds, default=30.0, metavar="SECONDS",
                        help="how long an answer may take; 30 by default")  # fmt: skip
    parser.add_argument("--silence", type=seconds, default=0.0, metavar="SECONDS",
                        help="let a stream be silent for so long, to see that it is kept open")  # fmt: skip
    parser.add_argument("--ca", metavar="PATH", help="certificates to trust besides the system's")
