"""The catalogue: which models there are, where each is served, and what it costs."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Literal
from urllib.parse import urlsplit

from msgspec import Struct
from msgspec.structs import force_setattr
from typing_extensions import override

from llmgateway.domain.pricing import FREE, Price

OnHangup = Literal["cancel", "drain"]


class Deadlines(Struct, frozen=True, kw_only=True):
    """Seconds: waiting for a connection, connecting, sending the request, until the first byte of the answer,
    between two pieces of it, and for all of it."""

    pool: float = 2
    connect: float = 5
    send: float = 30
    first_byte: float = 120
    idle: float = 300
    total: float = 3600


class Target(Struct, frozen=True, kw_only=True):
    """One place where a model is served. `url` is the base that `/chat/completions` is joined to, so it ends
    in `/v1`; `model` is its name there; `tokenizer` is the address that counts tokens.

    `replica` is host:port of the address, for records and metrics.
    `continuous_usage`: the server takes `stream_options.continuous_usage_stats` (vLLM does); None: find out.
    """

    provider: str = "openai"
    url: str
    model: str
    credential: str | None = None
    tokenizer: str | None = None
    continuous_usage: bool | None = None
    replica: str = ""

    def __post_init__(self) -> None:
        if not self.replica:
            force_setattr(self, "replica", urlsplit(self.url).netloc or self.provider)

    @override
    def __repr__(self) -> str:  # the credential stays out of logs and tracebacks
        return f"Target({self.provider} {self.model} at {self.url})"


class Model(Struct, frozen=True, kw_only=True):
    """What users ask for by `id` or an alias, and the targets that serve it, in order of preference.

    At most `max_in_flight` calls are at the model at once, from the whole fleet; `max_waiting` more wait for
    their turn (None: four times as many), each for at most `max_wait` seconds.
    """

    id: str
    targets: tuple[Target, ...]
    aliases: tuple[str, ...] = ()
    context: int | None = None
    max_output: int | None = None
    max_choices: int = 16
    max_in_flight: int | None = None
    max_waiting: int | None = None
    max_wait: float = 60
    on_hangup: OnHangup = "cancel"
    price: Price = FREE
    data_class: str | None = None
    deadlines: Deadlines = Deadlines()
    created: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    owned_by: str = "llmgateway"
    source: Literal["settings", "admin", "built-in"] = "settings"


class Catalog:
    """All models by id and alias; immutable. A changed catalogue is a new one.

    Of two models with the same name the first given wins: settings before what operators added.
    """

    __slots__ = ("_by_name", "find", "models")

    def __init__(self, models: Iterable[Model]) -> None:
        by_id: dict[str, Model] = {}
        for model in models:
            by_id.setdefault(model.id, model)
        self.models = tuple(by_id.values())
        self._by_name = {alias: model for model in reversed(self.models) for alias in model.aliases} | by_id
        self.find = self._by_name.get

    def __iter__(self) -> Iterator[Model]:
        return iter(self.models)
