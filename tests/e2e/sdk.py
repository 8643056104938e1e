"""The official Python SDK as the tests use it."""

from typing import Any

from openai import AsyncOpenAI

QUESTION = [{"role": "user", "content": "one two three"}]


def chat(client: AsyncOpenAI, model: str, **more: Any) -> Any:
    """A question of three words; its fields may be wrong, so they are not typed."""
    create: Any = client.chat.completions.create
    return create(model=model, messages=QUESTION, **more)
