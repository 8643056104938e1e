"""`GET /v1/models`, and how many tokens a text has: what a key may ask besides calls, by the same rules."""

import asyncio
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route as Path

from llmgateway.domain.catalog import Model, Target
from llmgateway.domain.entries import entry_of
from llmgateway.domain.errors import InvalidRequest, TooLarge, UnsupportedMedia, UpstreamError
from llmgateway.domain.estimate import tokens_in
from llmgateway.domain.keys import Principal
from llmgateway.edge.caller import token_of
from llmgateway.flow.authenticate import Authenticate
from llmgateway.flow.count import Count, text_of_messages, text_of_prompt
from llmgateway.flow.route import Route
from llmgateway.wire.jsonhead import read_object

COUNT_SECONDS = 5.0

_encode = msgspec.json.Encoder().encode


class Models:
    """`currency` is that of the prices shown."""

    def __init__(
        self, authenticate: Authenticate, route: Route, count: Count, *, currency: str, max_body: int
    ) -> None:
        self._authenticate = authenticate
        self._route = route
        self._count = count
        self._currency = currency
        self._max_body = max_body

    def routes(self) -> list[BaseRoute]:
        return [
            Path("/v1/models", self.index),
            Path("/v1/models/{id:path}", self.one),
            Path("/extras/tokenize/count", self.tokens, methods=["POST"]),
            Path("/v1/extras/tokenize/count", self.tokens, methods=["POST"]),
        ]

    async def index(self, request: Request) -> Response:
        principal = await self._caller(request)
        cards = [self._card(model) for model in self._route.visible(principal)]
        return _json({"object": "list", "data": cards})

    async def one(self, request: Request) -> Response:
        principal = await self._caller(request)
        return _json(self._card(self._route.find(request.path_params["id"], principal)))

    async def tokens(self, request: Request) -> Response:
        principal = await self._caller(request)
        asked = await self._asked(request)
        model = self._route.find(_model_of(asked), principal)
        text, chat = _text_or_chat(asked)
        count, source = await self._tokens(model, text, chat)
        return _json({"count": count, "source": source})

    async def _caller(self, request: Request) -> Principal:
        pairs = request.scope["headers"]
        return await self._authenticate(token_of(pairs, dict(pairs)))

    def _card(self, model: Model) -> dict[str, Any]:
        card = {
            "id": model.id,
            "object": "model",
            "created": int(model.created.timestamp()),
            "owned_by": model.owned_by,
            "aliases": model.aliases,
            "price": {**entry_of(model)["price"], "currency": self._currency},
            "max_model_len": model.context,
            "max_output": model.max_output,
            "data_class": model.data_class,
        }
        return {name: value for name, value in card.items() if value is not None}

    async def _asked(self, request: Request) -> dict[str, Any]:
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise UnsupportedMedia("Request bodies must not be compressed.")
        pieces, size = [], 0
        async for piece in request.stream():
            pieces.append(piece)
            size += len(piece)
            if size > self._max_body:
                raise TooLarge(f"The request body is larger than {self._max_body} bytes.")
        return read_object(b"".join(pieces))

    async def _tokens(self, model: Model, text: str, chat: dict[str, Any] | None) -> tuple[int, str]:
        """From the first server that can tell; else an estimate that says that it is one."""
        try:
            async with asyncio.timeout(COUNT_SECONDS):
                for target in model.targets:
                    try:
                        return await self._ask(target, text, chat), "counted"
                    except UpstreamError:
                        continue
        except TimeoutError:
            pass
        return tokens_in(len(text.encode("utf-8", "surrogatepass"))), "estimated"

    async def _ask(self, target: Target, text: str, chat: dict[str, Any] | None) -> int:
        return await (self._count.text(target, text) if chat is None else self._count.chat(target, chat))


def _model_of(asked: dict[str, Any]) -> str:
    inner = asked.get("input")
    model = asked.get("model", inner.get("model") if isinstance(inner, dict) else None)
    if not isinstance(model, str):
        raise InvalidRequest("You must say which 'model' to use.", param="model")
    return model


def _text_or_chat(asked: dict[str, Any]) -> tuple[str, dict[str, Any] | None]:
    """The words, and the chat request where it is one: its template has tokens too."""
    inner = asked.get("input", asked.get("prompt"))
    chat = inner if isinstance(inner, dict) else asked
    if isinstance(chat.get("messages"), list):
        return text_of_messages(chat["messages"]), chat
    if isinstance(inner, str | list):
        return text_of_prompt(inner), None
    raise InvalidRequest("Give the text as 'input', or a chat as 'messages'.", param="input")


def _json(value: object) -> Response:
    return Response(_encode(value), media_type="application/json")
