"""A MongoDB replica set of three, with the times that it has by default."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from tests.disasters.network import HUB, Member
from tests.lab.waiting import wait_until

PATIENCE = 60.0


class Trio:
    def __init__(self, members: Sequence[Member]) -> None:
        self.members = members

    def url(self, database: str) -> str:
        hosts = ",".join(f"{HUB}:{member.port}" for member in self.members)
        return f"mongodb://{hosts}/{database}?replicaSet=lab"

    def primary(self) -> Member:
        found = [
            one for one in self.members if one.program.is_running and hello(one).get("isWritablePrimary")
        ]
        assert len(found) == 1, "one primary"
        return found[0]

    def secondary(self) -> Member:
        return next(one for one in self.members if one is not self.primary())

    def is_whole(self) -> bool:
        told = [hello(member) for member in self.members]
        return sum(bool(one.get("isWritablePrimary")) for one in told) == 1 and (
            sum(bool(one.get("secondary")) for one in told) == len(told) - 1
        )


def hello(member: Member) -> Mapping[str, Any]:
    direct = f"mongodb://127.0.0.1:{member.port}/?directConnection=true&serverSelectionTimeoutMS=1000"
    with MongoClient[dict[str, Any]](direct) as client:
        try:
            return client.admin.command("hello")
        except PyMongoError:
            return {}


@contextmanager
def trio() -> Iterator[Trio]:
    with ExitStack() as stack:
        made = Trio([stack.enter_context(Member()) for _ in range(3)])
        direct = f"mongodb://127.0.0.1:{made.members[0].port}/?directConnection=true"
        with MongoClient[dict[str, Any]](direct) as client:
            places = [{"_id": n, "host": f"{HUB}:{one.port}"} for n, one in enumerate(made.members)]
            client.admin.command("replSetInitiate", {"_id": "lab", "members": places})
        wait_until(made.is_whole, "a primary and two secondaries", PATIENCE)
        yield made
