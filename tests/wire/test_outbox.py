"""Writes of one turn go out in the next: in order, one a transport, none to what is closing."""

from collections.abc import Callable

from llmgateway.wire.outbox import LARGEST, Outbox


class Wire:
    def __init__(self, log: list[tuple[str, bytes]], name: str) -> None:
        self._log = log
        self._name = name
        self.is_closed = False

    def write(self, data: bytes) -> None:
        self._log.append((self._name, data))

    def is_closing(self) -> bool:
        return self.is_closed


class Turns:
    """An event loop's queue, turned by hand."""

    def __init__(self) -> None:
        self._queue: list[Callable[[], None]] = []

    def call_soon(self, callback: Callable[[], None]) -> None:
        self._queue.append(callback)

    def turn(self) -> int:
        queue, self._queue = self._queue, []
        for callback in queue:
            callback()
        return len(queue)


def test_pieces_keep_their_order_and_become_one_write() -> None:
    log: list[tuple[str, bytes]] = []
    turns, a, b = Turns(), Wire(log, "a"), Wire(log, "b")
    outbox = Outbox(turns.call_soon)
    for wire, data in ((a, b"1"), (b, b"2"), (a, b"3")):
        outbox.put(wire, data)
    assert log == []
    assert turns.turn() == 1
    assert log == [("a", b"13"), ("b", b"2")]
    assert turns.turn() == 0


def test_what_is_closing_is_not_written_to() -> None:
    log: list[tuple[str, bytes]] = []
    turns, a = Turns(), Wire(log, "a")
    outbox = Outbox(turns.call_soon)
    outbox.put(a, b"1")
    a.is_closed = True
    turns.turn()
    assert log == []


def test_who_closes_in_order_flushes_first() -> None:
    log: list[tuple[str, bytes]] = []
    turns, a = Turns(), Wire(log, "a")
    outbox = Outbox(turns.call_soon)
    outbox.put(a, b"1")
    outbox.flush()
    assert log == [("a", b"1")]
    outbox.put(a, b"2")
    turns.turn()
    assert log == [("a", b"1"), ("a", b"2")]


def test_much_for_one_transport_is_written_at_once() -> None:
    """So that a reader who is too slow is felt before memory is full of what it has not read."""
    log: list[tuple[str, bytes]] = []
    turns, a = Turns(), Wire(log, "a")
    outbox = Outbox(turns.call_soon)
    outbox.put(a, b"1")
    outbox.put(a, b"x" * LARGEST)
    turns.turn()
    assert b"".join(data for _, data in log) == b"1" + b"x" * LARGEST
