"""The table of what the scripted upstream can do: a model's name says how it behaves.

A name may carry a mark behind `~`, so that several models behave alike: `ok-5~cheap`, `ok-5~dear`.
"""

import re
from collections.abc import Callable, Mapping

from tests.lab import breaking, telling
from tests.lab.exchange import Exchange
from tests.lab.payloads import CREATED, error, tokens_in
from tests.lab.telling import Behaviour, Plan, told


def always(behaviour: Behaviour) -> Callable[..., Behaviour]:
    return lambda: behaviour


def planned(plan: Plan) -> Callable[..., Behaviour]:
    return lambda: told(plan)


TABLE: Mapping[str, Callable[..., Behaviour]] = {
    # answers
    r"ok": telling.ok,
    r"ok-(\d+)": telling.ok,
    r"ok-(\d+)x(\d+)ms": telling.ok,
    r"hold-after-(\d+)": telling.hold_after,
    r"hold-before-headers": telling.held_head,
    r"echo-headers": always(telling.echo),
    r"reject-stream-options": lambda: telling.rejecting("stream_options"),
    r"reject-continuous-usage": lambda: telling.rejecting("continuous_usage_stats"),
    # failures in the middle
    r"die-after-(\d+)": telling.die_after,
    r"reset-after-(\d+)": telling.reset_after,
    r"stall-after-(\d+)": telling.stall_after,
    r"error-event-first": telling.error_event,
    r"error-event-after-(\d+)": telling.error_event,
    r"reset-mid-chunk": always(breaking.reset_mid_chunk),
    r"truncated-length": always(breaking.truncated_length),
    # failures before the answer
    r"rst-before-headers": always(breaking.reset_before_head),
    r"close-before-headers": always(breaking.close_before_head),
    r"accept-and-hang": always(breaking.hang_before_head),
    r"status-(\d{3})": telling.status,
    r"status-(\d{3})-retry-after-([^~]+)": telling.status,
    r"status-(\d{3})-html": telling.html_status,
    r"flaky-(\d+)": telling.failing_first,
    r"flaky-(\d+)x(\d{3})": telling.failing_first,
    r"redirect": always(breaking.redirect),
    # the end of a stream, and usage
    r"no-done": planned(Plan(done=False)),
    r"no-usage": planned(Plan(usage="never")),
    r"usage-null-chunks": planned(Plan(usage="null")),
    r"continuous-usage": planned(Plan(usage="continuous")),
    r"usage-with-choices": planned(Plan(usage="with_choices")),
    r"usage-bad-shape": lambda: telling.usage_of("12"),
    rf"usage-bad-({'|'.join(telling.BAD_NUMBERS)})": telling.bad_usage,
    # the wrong thing
    r"html-200": always(breaking.page),
    r"json-to-stream": always(breaking.json_to_stream),
    r"sse-to-json": always(breaking.stream_to_json),
    r"gzip": always(breaking.zipped),
    r"gzip-bomb": always(breaking.zip_bomb),
    # unusual and broken HTTP
    r"http10": always(breaking.close_delimited),
    r"connection-close": always(breaking.connection_close),
    r"interim-100": always(breaking.interim_first),
    r"trailers": always(breaking.trailers),
    r"two-responses": always(breaking.two_responses),
    r"cl-and-te": always(breaking.length_and_chunked),
    # size
    r"big-event-(\d+)(B|KiB|MiB|GiB)": breaking.big_event,
    r"endless-event": always(breaking.endless_event),
    r"flood": always(breaking.flood),
}


def behaviour_of(model: str) -> Behaviour:
    """What a model of this name does; one that is not in the table is not there."""
    name = model.partition("~")[0]
    for pattern, make in TABLE.items():
        if found := re.fullmatch(pattern, name):
            return make(*found.groups())
    return no_such_model


async def no_such_model(x: Exchange) -> None:
    kind = "invalid_request_error"
    await x.json(error(f"The model `{x.question.model}` does not exist.", "model_not_found", kind), 404)


# --- tokenisers ---------------------------------------------------------------------------------------------


async def count_words(x: Exchange) -> None:
    """A word is a token. llama-cpp-python's form takes a string only, vLLM's takes a prompt or messages."""
    fields = x.question.fields
    if x.question.endpoint == "tokenize":
        count = tokens_in(fields.get("prompt")) + tokens_in(fields.get("messages"))
        return await x.json({"count": count, "max_model_len": 4096, "tokens": list(range(count))})
    if not isinstance(fields.get("input"), str):
        return await x.json(error("1 validation error: input: Input should be a valid string"), 500)
    await x.json({"count": tokens_in(fields["input"])})
    return None


async def only_extras(x: Exchange) -> None:
    """llama-cpp-python: `/tokenize` is not there."""
    await (count_words(x) if x.question.endpoint != "tokenize" else no_such_path(x))


async def only_tokenize(x: Exchange) -> None:
    """vLLM: `/extras/tokenize/count` is not there."""
    await (count_words(x) if x.question.endpoint == "tokenize" else no_such_path(x))


async def no_such_path(x: Exchange) -> None:
    await x.json({"detail": "Not Found"}, 404)


async def count_of_another_kind(x: Exchange) -> None:
    await x.json({"count": "many"})


async def count_below_zero(x: Exchange) -> None:
    await x.json({"count": -1})


async def list_models(x: Exchange) -> None:
    entry = {"id": x.question.model, "object": "model", "created": CREATED, "owned_by": "lab"}
    await x.json({"object": "list", "data": [{**entry, "max_model_len": 4096}]})


TOKENIZERS: Mapping[str, Behaviour] = {
    "words": count_words,
    "extras": only_extras,
    "vllm": only_tokenize,
    "absent": no_such_path,
    "hang": breaking.hang_before_head,
    "reset": breaking.reset_before_head,
    "broken": telling.status("500"),
    "html": breaking.page,
    "wrong-type": count_of_another_kind,
    "negative": count_below_zero,
}
