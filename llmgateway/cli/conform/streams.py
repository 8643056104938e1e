"""Checks of streams: are they events, do they come as they are made, and do they end as SDKs expect."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from llmgateway.cli.conform.answers import CHAT, question
from llmgateway.cli.conform.asking import OWN_MODEL, Answer, Deployment, Line
from llmgateway.cli.conform.endings import Differs, Failed, Skipped
from llmgateway.cli.conform.shapes import DONE, EVENT_STREAM, chunks_in, data_in, event_times, told
from llmgateway.cli.printing import counted
from llmgateway.wire.sse import events

WORDS = "Count from one to twenty: one two three four five six seven eight"
PAUSE = 0.05  # seconds that the built-in model rests before a word
FEWEST = 6  # chunks that a pace can be told from
FASTEST = 2000.0  # chunks in a second that no model makes
SHORTEST = 0.4  # seconds that an answer must take before holding it back shows
FIELDS = (b"data:", b":")  # what a line of a stream of this API begins with


def counted_stream(deployment: Deployment) -> Answer:
    """One for nearly all checks, as slow as a model."""
    pause = {"pause": PAUSE} if deployment.model == OWN_MODEL else {}
    options = {"include_usage": True}
    return deployment.once("stream", lambda: _streamed(deployment, stream_options=options, **pause))


def _streamed(deployment: Deployment, **more: Any) -> Answer:
    answer = deployment.post(CHAT, question(deployment, WORDS, stream=True, **more))
    if answer.status != 200:
        raise Failed("200", told(answer))
    return answer


def typed(deployment: Deployment) -> str:
    answer = counted_stream(deployment)
    if answer.media_type != EVENT_STREAM:
        raise Failed(EVENT_STREAM, told(answer))
    return EVENT_STREAM


def uncompressed(deployment: Deployment) -> str:
    """Compression holds events back until a block is full."""
    encoding = counted_stream(deployment).header("content-encoding")
    if encoding not in (None, "identity"):
        raise Failed("no compression", encoding)
    return "as it is"


def uncached(deployment: Deployment) -> str:
    rule = counted_stream(deployment).header("cache-control")
    if rule is None or not any(word in rule for word in ("no-cache", "no-store", "private")):
        raise Differs("cache-control: no-cache", rule)
    return rule


def framed(deployment: Deployment) -> str:
    """SDKs stumble over events without data, and over `id` and `retry`."""
    count = 0
    for event in events(counted_stream(deployment).body):
        count += 1
        lines = event.splitlines()
        strange = [line for line in lines if line and not line.startswith(FIELDS)]
        if strange or not event.endswith((b"\n\n", b"\r\n\r\n", b"\r\r")):
            raise Failed("events of data, each with a blank line", event.decode("utf-8", "replace"))
    return f"{count} events"


def alike(deployment: Deployment) -> str:
    chunks = chunks_in(counted_stream(deployment))
    names = {chunk.id for chunk in chunks}
    if len(names) != 1:
        raise Failed("one id on all chunks", ", ".join(sorted(names)) or "no chunks")
    return f"{len(chunks)} chunks"


def finished(deployment: Deployment) -> str:
    reasons = [
        choice.finish_reason for chunk in chunks_in(counted_stream(deployment)) for choice in chunk.choices
    ]
    if not reasons or reasons[-1] is None or any(reasons[:-1]):
        raise Failed("one finish_reason, on the last choice", [one for one in reasons if one])
    return str(reasons[-1])


def told_usage(deployment: Deployment) -> str:
    chunks = chunks_in(counted_stream(deployment))
    usage = chunks[-1].usage if chunks and not chunks[-1].choices else None
    if usage is None:
        raise Failed("a last chunk with usage and without choices", chunks[-1] if chunks else "no chunks")
    if usage.total_tokens != usage.prompt_tokens + usage.completion_tokens:
        raise Failed("prompt and completion tokens, and their sum", usage)
    return f"{usage.prompt_tokens} + {usage.completion_tokens} tokens"


def unasked(deployment: Deployment) -> str:
    """Programs that did not ask for usage take the first choice of every chunk."""
    chunks = chunks_in(_streamed(deployment))
    without = [chunk for chunk in chunks if not chunk.choices]
    if without:
        raise Failed("choices in every chunk", without[0])
    return f"{len(chunks)} chunks"


def done(deployment: Deployment) -> str:
    answer = counted_stream(deployment)
    said = data_in(answer)
    if answer.is_cut:
        raise Failed("the end of the body", "a connection that was cut")
    if DONE not in said:
        raise Failed("[DONE] at the end", said[-1].decode("utf-8", "replace") if said else "nothing")
    if said[-1] != DONE or said.count(DONE) != 1:
        raise Failed("nothing after [DONE]", said[-1].decode("utf-8", "replace"))
    return "[DONE]"


def flows(deployment: Deployment) -> str:
    """What is held back until it is whole comes all at once, after the time that it took to make."""
    answer = counted_stream(deployment)
    times = list(event_times(answer))
    if len(times) < FEWEST:
        raise Skipped(f"{counted(len(times), 'event')} are too few to tell")
    first, last = times[0], times[-1]
    if last - first > len(times) / FASTEST:
        return f"{len(times)} events over {last - first:.2f} s"
    if last < SHORTEST:
        raise Skipped(f"the model answered within {last:.2f} s, too fast to tell")
    raise Failed("events as they are made", f"all {len(times)} of them at once, after {last:.2f} s")


def kept_open(deployment: Deployment) -> str:
    """The gateway says something when a model does not, so that nothing in between hangs up."""
    seconds = deployment.silence
    if not seconds:
        raise Skipped("asks for a silent stream: --silence 90")
    if deployment.model != OWN_MODEL:
        raise Skipped(f"only the gateway's own model, {OWN_MODEL}, is silent when asked")
    asked = msgspec.json.encode(question(deployment, "hello", stream=True, pause=seconds))
    with Line(deployment) as line:
        answer = line.ask("POST", CHAT, asked, patience=seconds + deployment.timeout)
    comments = sum(event.startswith(b":") for event in events(answer.body))
    if answer.is_cut or DONE not in data_in(answer):
        held = f"{answer.pieces[-1][0]:.1f} s" if answer.pieces else "no time"
        raise Failed(f"a stream that is open through {seconds:g} s of silence", f"an end after {held}")
    return f"{seconds:g} s, with {counted(comments, 'comment')} against the silence"


CHECKS: Sequence[tuple[str, Callable[[Deployment], str]]] = (
    ("stream.type", typed),
    ("stream.compression", uncompressed),
    ("stream.cache", uncached),
    ("stream.framing", framed),
    ("stream.ids", alike),
    ("stream.finish", finished),
    ("stream.usage", told_usage),
    ("stream.usage-unasked", unasked),
    ("stream.done", done),
    ("stream.flow", flows),
    ("stream.silence", kept_open),
)
