"""All that a gateway leaves behind anywhere, as bytes: what a thief of disks and databases would hold."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from redis import Redis


def found_in(texts: Mapping[str, bytes], words: Sequence[str]) -> list[tuple[str, str]]:
    """Where something stands that must not."""
    return [(place, word) for place, text in texts.items() for word in words if word.encode() in text]


def files_of(directory: Path, *but: str) -> dict[str, bytes]:
    """Every file under it but those of these names, whoever wrote it."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and path.name not in but
    }


def dump_of_redis(url: str) -> bytes:
    """Every key with its value, in the server's own form and as it is read."""
    with Redis.from_url(url) as client:
        return b"\n".join(piece for key in client.scan_iter("*") for piece in (key, *_values(client, key)))


def _values(client: Any, key: bytes) -> Iterator[bytes]:
    yield client.dump(key) or b""
    kind = client.type(key)
    if kind == b"string":
        yield client.get(key) or b""
    elif kind == b"hash":
        yield from (piece for pair in client.hgetall(key).items() for piece in pair)
    elif kind == b"set":
        yield from client.smembers(key)
    elif kind == b"zset":
        yield from client.zrange(key, 0, -1)
    elif kind == b"list":
        yield from client.lrange(key, 0, -1)


def dump_of_mongo(url: str) -> bytes:
    """Every document of every collection, and all that was ever written to them: the log of operations keeps
    what was deleted, too."""
    with MongoClient[dict[str, Any]](url) as client:
        database = client.get_default_database()
        kept = [repr(list(database[name].find())) for name in database.list_collection_names()]
        log = client["local"]["oplog.rs"].find({"ns": {"$regex": f"^{database.name}\\."}})
        batches = client["local"]["oplog.rs"].find({"o.applyOps.ns": {"$regex": f"^{database.name}\\."}})
        return "\n".join([*kept, *map(repr, log), *map(repr, batches)]).encode()
