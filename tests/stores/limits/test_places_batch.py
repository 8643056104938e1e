"""Words between workers and the script: keys in one slot, and nothing that cannot be read is believed."""

import msgspec

from llmgateway.domain.admission import Queue
from llmgateway.stores.limits.places_batch import Told, keys_of, line, news, queue_of, told
from tests.stores.limits.places_contract import turn


def test_all_keys_are_in_one_slot() -> None:
    keys = keys_of(["a", "b/c:d {x}"])
    assert len(keys) == len(set(keys)) == 4 + 2 * 6
    assert all(key.startswith("{lgw}:places:") for key in keys)


def test_a_users_name_ends_where_it_should() -> None:
    assert line(turn("c", "a\0b", weight=2.0, prompt=3), 7) == ("c", "a b", 2.0, 3, 7)


def test_what_is_no_answer_is_none() -> None:
    assert told(msgspec.msgpack.encode([3, "done", 2, [[1, -1]], ["a"], [], []])) == Told(
        3, "done", 2, [(1, -1.0)], ["a"]
    )
    assert told(msgspec.msgpack.encode([3, "unknown"])) == Told(3, "unknown")
    for reply in (None, b"", b"\xc1", 5, msgspec.msgpack.encode("x"), msgspec.msgpack.encode([1])):
        assert told(reply) is None


def test_news_that_cannot_be_read_are_none() -> None:
    """The next tick asks anyway."""
    assert news(msgspec.msgpack.encode([["a"], ["b"]])) == (["a"], ["b"])
    for message in (b"", b"\xc1", msgspec.msgpack.encode([1, 2])):
        assert news(message) == ([], [])


def test_nobody_knows_the_wait() -> None:
    assert queue_of(3, -1) == Queue(3, None)
    assert queue_of(3, 4.5) == Queue(3, 4.5)
