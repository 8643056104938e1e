"""All use cases over a real SQLite file, with a clock that is set and a configuration that tests change."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec import structs

from llmgateway.control.audit import Actor
from llmgateway.control.erasure import Erasure
from llmgateway.control.ground import Configuration, Ground
from llmgateway.control.services import Control
from llmgateway.domain.catalog import Model, Target
from llmgateway.domain.entries import Defaults
from llmgateway.domain.keys import Principal
from llmgateway.flow.authenticate import Authenticate
from llmgateway.stores.sqlite import SqliteStore, open_sqlite
from llmgateway.stores.sqlite_shelf import SqliteShelf
from tests.doubles import SetClock, WatchedState

PEPPER = b"pepper" * 8
ANN = Actor("operator", "cli", "req-1")


def model(id: str, *aliases: str, url: str = "http://10.0.0.7:8000/v1") -> Model:
    return Model(id=id, aliases=aliases, targets=(Target(url=url, model=id, credential="hush-hush"),))


class Desk:
    """What a test works with. `authenticate` is another process's: it learns of changes by announcement."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.clock = SetClock()
        self.state = WatchedState()
        self.configuration = Configuration(
            base_models=(model("qwen3-32b", "default"), model("org/embed")), defaults=Defaults(source="admin")
        )
        self.control = Control.over(
            store, self.state, self.clock, pepper=PEPPER, configured=lambda: self.configuration
        )
        ground = Ground(
            store=store, state=self.state, clock=self.clock, audit=self.control.audit,
            configured=lambda: self.configuration, pepper=PEPPER,
        )  # fmt: skip
        self.shelf = SqliteShelf(store.file, self.clock)
        self.erasure = Erasure(ground, store, self.shelf)
        self.authenticate = Authenticate(store, self.state, pepper=PEPPER, clock=self.clock)

    def configure(self, **changes: object) -> None:
        self.configuration = structs.replace(self.configuration, **changes)

    async def call(self, token: str) -> Principal:
        """What a program's call finds, with all that was announced obeyed."""
        for change in self.state.announced:
            self.authenticate.forget(change)
        self.state.announced.clear()
        return await self.authenticate(token.encode())


@asynccontextmanager
async def open_desk(directory: Path) -> AsyncIterator[Desk]:
    async with open_sqlite(directory / "gateway.db", 5) as store:
        yield Desk(store)
