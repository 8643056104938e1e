"""Checks of models, of whole answers, and of embeddings."""

import base64
import binascii
import struct
from collections.abc import Callable, Sequence
from urllib.parse import quote

from llmgateway.cli.conform.asking import Answer, Deployment
from llmgateway.cli.conform.endings import Failed, Skipped
from llmgateway.cli.conform.shapes import Card, Cards, Chat, Embeddings, coded, read, refused, told

MODELS, CHAT, EMBEDDINGS = "/models", "/chat/completions", "/embeddings"
NO_MODEL = "conform/no-such-model"
MOST_TOKENS = 16
CLOSE = 1e-4  # between a number as text and as four bytes


def listed(deployment: Deployment) -> str:
    cards = read(deployment.once("models", lambda: deployment.get(MODELS)), Cards).data
    if not cards:
        raise Failed("models that this key may use", "an empty list")
    deployment.choose([card.id for card in cards])
    return ", ".join(card.id for card in cards[:5]) + (", ..." if len(cards) > 5 else "")


def retrieved(deployment: Deployment) -> str:
    name = deployment.model
    card = read(deployment.get(f"{MODELS}/{quote(name)}"), Card)
    if card.id != name:
        raise Failed(f"the model {name}", card.id)
    return card.id


def not_retrieved(deployment: Deployment) -> str:
    coded(refused(deployment.get(f"{MODELS}/{NO_MODEL}"), 404), "model_not_found")
    return "404"


# --- chat ---


def question(deployment: Deployment, words: str = "Say hello.", **more: object) -> dict[str, object]:
    messages = [{"role": "user", "content": words}]
    return {"model": deployment.model, "messages": messages, "max_tokens": MOST_TOKENS, **more}


def whole_answer(deployment: Deployment) -> Answer:
    return deployment.once("chat", lambda: deployment.post(CHAT, question(deployment)))


def answered(deployment: Deployment) -> str:
    chat = read(whole_answer(deployment), Chat)
    if len(chat.choices) != 1:
        raise Failed("one choice", len(chat.choices))
    return f"ended with {chat.choices[0].finish_reason}"


def counted(deployment: Deployment) -> str:
    usage = read(whole_answer(deployment), Chat).usage
    if usage is None:
        raise Failed("usage", "none")
    if usage.prompt_tokens < 1 or usage.total_tokens != usage.prompt_tokens + usage.completion_tokens:
        raise Failed("prompt and completion tokens, and their sum", usage)
    return f"{usage.prompt_tokens} + {usage.completion_tokens} tokens"


# --- embeddings ---


def embedded(deployment: Deployment) -> str:
    return f"{len(_numbers(deployment))} numbers"


def packed(deployment: Deployment) -> str:
    """What the official SDKs ask for when nobody says how."""
    numbers = _numbers(deployment)
    asked = {"model": deployment.model, "input": "hello", "encoding_format": "base64"}
    found = read(deployment.post(EMBEDDINGS, asked), Embeddings).data[0].embedding
    if not isinstance(found, str):
        raise Failed("numbers packed as base64", "a list")
    try:
        unpacked = struct.unpack(f"<{len(numbers)}f", base64.b64decode(found, validate=True))
    except (binascii.Error, struct.error) as error:
        raise Failed(f"{len(numbers)} numbers of four bytes as base64", error) from None
    if any(abs(one - other) > CLOSE for one, other in zip(numbers, unpacked, strict=True)):
        raise Failed("the same numbers, packed", "others")
    return f"{len(unpacked)} numbers"


def _numbers(deployment: Deployment) -> list[float]:
    asked = {"model": deployment.model, "input": "hello", "encoding_format": "float"}
    answer = deployment.once("embeddings", lambda: deployment.post(EMBEDDINGS, asked))
    if answer.status in (400, 404, 405, 422, 501):
        refused(answer, answer.status)
        raise Skipped(f"the model {deployment.model} gives none")
    data = read(answer, Embeddings).data
    if len(data) != 1 or not isinstance(data[0].embedding, list) or not data[0].embedding:
        raise Failed("a list of numbers", told(answer))
    return data[0].embedding


CHECKS: Sequence[tuple[str, Callable[[Deployment], str]]] = (
    ("models.list", listed),
    ("models.retrieve", retrieved),
    ("models.unknown", not_retrieved),
    ("chat.answer", answered),
    ("chat.usage", counted),
    ("embeddings.list", embedded),
    ("embeddings.base64", packed),
)
