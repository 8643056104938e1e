"""The API for people: what can be asked, an example of each, and a form that asks it."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from llmgateway.domain.endpoints import ENDPOINTS
from llmgateway.portal.visit import Answer, Desk, Page, Visit
from llmgateway.portal.words import later

NO_MODEL = "MODEL"
MESSAGES = [{"role": "user", "content": "Hello!"}]
# By path: what goes beside the model's name.
BODIES: Mapping[str, Mapping[str, Any]] = {
    "/v1/chat/completions": {"messages": MESSAGES, "stream": True},
    "/v1/completions": {"prompt": "Once upon a time", "max_tokens": 50},
    "/v1/embeddings": {"input": ["A first text", "A second one"]},
    "/v1/responses": {"input": "Hello!"},
    "/v1/moderations": {"input": "Is this fine?"},
    "/v1/rerank": {"query": "What is a gateway?", "documents": ["A way in", "A fruit"]},
    "/v1/score": {"text_1": "A way in", "text_2": "An entrance"},
    "/v1/audio/speech": {"input": "Hello!", "voice": "alloy"},
    "/v1/images/generations": {"prompt": "A lighthouse in fog"},
    "/extras/tokenize/count": {"messages": MESSAGES},
}
OTHERS: Sequence[tuple[str, str, str]] = (
    ("GET", "/v1/models", later("The models that the key may use")),
    ("POST", "/extras/tokenize/count", later("How many tokens a text or a chat has")),
)
SUMMARIES: Mapping[str, str] = {
    "/v1/chat/completions": later("Chat, whole or streamed"),
    "/v1/completions": later("Text completion, whole or streamed"),
    "/v1/embeddings": later("Embedding vectors"),
    "/v1/responses": later("Responses, whole or streamed"),
    "/v1/moderations": later("Moderation"),
    "/v1/rerank": later("Documents ranked by a query"),
    "/v1/score": later("Similarity scores"),
    "/v1/audio/speech": later("Speech from text"),
    "/v1/images/generations": later("Images from text"),
}


class Example(Struct, frozen=True):
    """A request to look at and to try; `body` is empty for a GET."""

    method: str
    path: str
    summary: str
    body: str


async def show(desk: Desk, visit: Visit) -> Answer:
    models = [model.id for model in desk.visible_to(visit.me)]
    return Page("api.html", {"examples": examples(next(iter(models), NO_MODEL))})


def examples(model: str) -> list[Example]:
    """Endpoints that take JSON; uploads are for programs."""
    calls = [("POST", path, SUMMARIES[path]) for path in ENDPOINTS if path in SUMMARIES]
    return [Example(method, path, summary, _body(path, model)) for method, path, summary in (*calls, *OTHERS)]


def _body(path: str, model: str) -> str:
    if path not in BODIES:
        return ""
    return msgspec.json.format(msgspec.json.encode({"model": model, **BODIES[path]}), indent=2).decode()
