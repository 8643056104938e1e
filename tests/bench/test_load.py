"""The two programs in C check each other: a sound upstream gives no error, an unsound answer is seen."""

import shutil
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.bench.cases import Aim, Figures, compile_tools, load, probe, start_upstream, upstream_count
from tests.bench.machine import Bed, Cores, make_bed

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")]

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
STAMP = b'data: {"choices":[{"delta":{"content":"@@0000000000000001.%05d"}}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"total_tokens":3}}\n\n'
DONE = b"data: [DONE]\n\n"

Ask = Callable[[bytes], Figures]


@pytest.fixture(scope="module")
def bed() -> Iterator[Bed]:
    compile_tools()
    with make_bed(Cores(None, None)) as made:
        start_upstream(made)
        yield made


@pytest.fixture
def ask(bed: Bed) -> Ask:
    """Asks a server that says these bytes for one stream of two chunks."""

    def asked(says: bytes) -> Figures:
        with socket.create_server(("127.0.0.1", 0)) as door:

            def answer() -> None:
                caller, _ = door.accept()
                with caller:
                    caller.recv(65536)
                    caller.sendall(says)

            server = threading.Thread(target=answer)
            server.start()
            figures = load(bed, Aim(door.getsockname()[1]), "-n 1 -s 2 -t 5")
            server.join(5)
        return figures

    return asked


def test_plain_answers_are_counted_on_both_sides(bed: Bed) -> None:
    aim, before = Aim(bed.upstream_port), upstream_count(bed)
    probe(aim)
    figures = load(bed, aim, "-c 4 -n 200 -t 10")
    assert (figures["requests"], figures["errors"], figures["cut"]) == (200, 0, 0)
    assert upstream_count(bed) - before == 201


def test_long_conversations_are_asked_as_an_agent_asks_them(bed: Bed) -> None:
    figures = load(bed, Aim(bed.upstream_port), "-c 4 -n 40 -b 76 -t 10")
    assert (figures["requests"], figures["errors"], figures["cut"]) == (40, 0, 0)


def test_streams_arrive_whole_and_in_order(bed: Bed) -> None:
    figures = load(bed, Aim(bed.upstream_port), "-c 20 -n 40 -s 30 -w 2 -r 20 -t 10")
    assert (figures["requests"], figures["errors"], figures["chunks"]) == (40, 0, 1200)
    assert figures["delay_p50_us"] is not None


def test_streams_without_a_delay_and_without_usage(bed: Bed) -> None:
    figures = load(bed, Aim(bed.upstream_port), "-c 8 -n 24 -s 500 -u -t 10")
    assert (figures["requests"], figures["errors"], figures["chunks"]) == (24, 0, 12000)


def test_what_is_open_at_the_limit_is_cut_and_no_error(bed: Bed) -> None:
    figures = load(bed, Aim(bed.upstream_port), "-c 2 -n 2 -s 1000 -w 100 -t 0.3")
    assert (figures["requests"], figures["errors"], figures["cut"]) == (0, 0, 2)


def test_a_whole_stream_that_ends_with_the_connection_is_good(ask: Ask) -> None:
    assert ask(HEAD + STAMP % 0 + STAMP % 1 + USAGE + DONE)["requests"] == 1


@pytest.mark.parametrize(
    "says",
    [
        HEAD + STAMP % 0 + STAMP % 1 + USAGE,
        HEAD + STAMP % 0 + USAGE + DONE,
        HEAD + STAMP % 1 + STAMP % 0 + USAGE + DONE,
        HEAD + STAMP % 0 + STAMP % 1 + DONE,
        HEAD.replace(b"200", b"503") + STAMP % 0 + STAMP % 1 + USAGE + DONE,
        b"",
    ],
    ids=["no [DONE]", "a chunk lost", "out of order", "no usage", "not 200", "closed"],
)
def test_an_unsound_stream_is_an_error(ask: Ask, says: bytes) -> None:
    figures = ask(says)
    assert (figures["requests"], figures["errors"]) == (0, 1)
    assert figures["first_error"]
