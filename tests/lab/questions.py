"""Questions that go to the scripted upstream itself, past any gateway."""

from typing import Any

from tests.lab.client import Answer, Request, chat, data_of, fetch, post
from tests.lab.upstream import ScriptedUpstream

USAGE = {"stream_options": {"include_usage": True}}


def asking(model: str, words: str = "one two three", **more: Any) -> Request:
    return post(f"/{model}/v1/chat/completions", chat(model, words, **more), x_request_id="lab-1")


async def ask(upstream: ScriptedUpstream, model: str, **more: Any) -> Answer:
    return await fetch(upstream.url, asking(model, **more))


async def stream_of(upstream: ScriptedUpstream, model: str, **more: Any) -> list[Any]:
    return data_of((await ask(upstream, model, stream=True, **more)).events)


def texts(events: list[Any]) -> list[str]:
    choices = [choice for event in events if isinstance(event, dict) for choice in event.get("choices", [])]
    return [choice["delta"]["content"] for choice in choices if "content" in choice["delta"]]
