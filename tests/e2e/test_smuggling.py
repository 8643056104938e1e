"""Requests that two servers could read differently, behind the proxies that stand in front of a gateway: what
is hidden in one is never a call of somebody else, and nobody gets another's answer."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import pytest

from tests.e2e.deployment import CHAT
from tests.edge.test_protocol import AMBIGUOUS, POST
from tests.lab.balancer import Haproxy
from tests.lab.client import Connection, chat, fetch, post
from tests.lab.gateway import Gateway, serving
from tests.lab.nginx import Nginx
from tests.lab.oracle import books_agree
from tests.lab.upstream import ScriptedUpstream

pytestmark = pytest.mark.e2e

HIDDEN, OTHERS = "ok-3", "ok-1"
SILENCE = 0.5  # seconds after which nothing more will be said
AT_ONCE = 32
MUTATIONS = [100, pytest.param(20_000, marks=pytest.mark.soak)]


class Front:
    """A proxy, the gateway behind it, and two people: one who hides requests, and one who does not."""

    def __init__(self, url: str, gateway: Gateway, upstream: ScriptedUpstream, keys: tuple[str, str]) -> None:
        self.url, self.gateway, self.upstream = url, gateway, upstream
        self.sender, self.other = keys
        self.answered = 0
        self._turns = asyncio.Semaphore(AT_ONCE)

    def hiding(self, name: str) -> bytes:
        """A request of the list with a whole call of the same sender behind it or within it."""
        head = post(CHAT, chat(OTHERS), self.sender).encoded("lab").partition(b"content-length")[0]
        return AMBIGUOUS[name].replace(POST, head) + post(CHAT, chat(HIDDEN), self.sender).encoded("lab")

    async def send(self, sent: bytes) -> None:
        """Counts the calls that the sender is told of."""
        async with self._turns, await Connection.open(self.url) as connection:
            said = b""
            with suppress(ConnectionError, TimeoutError):
                await connection.send(sent)
                while piece := await asyncio.wait_for(connection.reader.read(1 << 16), SILENCE):
                    said += piece
            self.answered += said.count(b"HTTP/1.1 200 ")

    async def ask(self, number: int) -> None:
        """The other one, whose call shares the proxy's connections."""
        async with self._turns:
            answer = await fetch(
                self.url, post(CHAT, chat(OTHERS), self.other, x_request_id=f"other-{number}")
            )
        assert (answer.status, answer.header("x-request-id")) == (200, f"other-{number}")
        self.answered += 1


@pytest.fixture(params=[Nginx, Haproxy])
async def front(request: pytest.FixtureRequest, upstream: ScriptedUpstream) -> AsyncIterator[Front]:
    environment = serving(upstream.url, HIDDEN, OTHERS)
    async with Gateway.embedded(environment, config="drain_pause: 0\n") as gateway:
        keys = (await gateway.create_key("sender")).secret, (await gateway.create_key("other")).secret
        with request.param(gateway.port) as proxy:
            yield Front(proxy.url, gateway, upstream, keys)


async def no_call_is_hidden(front: Front) -> None:
    records = await books_agree(front.gateway, front.upstream)
    assert len(front.upstream.calls) == len(records) == front.answered


async def test_s_prx_01_behind_a_proxy_every_call_is_its_senders(front: Front) -> None:
    sent = [front.send(front.hiding(name)) for name in AMBIGUOUS]
    await asyncio.gather(*sent, *(front.ask(number) for number in range(len(sent))))
    await no_call_is_hidden(front)


@pytest.mark.parametrize("count", MUTATIONS)
async def test_s_prx_02_mutations_agree_as_well(
    front: Front, count: int, figure: Callable[[str], None]
) -> None:
    chance = random.Random(2)
    names = sorted(AMBIGUOUS)
    for begin in range(0, count, 4 * AT_ONCE):
        some = range(begin, min(begin + 4 * AT_ONCE, count))
        sent = [mutated(front.hiding(chance.choice(names)), chance) for _ in some]
        await asyncio.gather(*map(front.send, sent), *(front.ask(number) for number in some))
    await no_call_is_hidden(front)
    figure(f"{count} mutated requests beside as many others: {front.answered} calls, each its sender's")


def mutated(request: bytes, chance: random.Random) -> bytes:
    """One to three changes in what frames the first request: its head and the beginning of its body."""
    found = bytearray(request)
    end = min(len(found), request.index(b"\r\n\r\n") + 12 if b"\r\n\r\n" in request else len(found))
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(end)
        match chance.randrange(4):
            case 0:
                found[at] = chance.choice(b"\r\n\t\x0b\x00 :;,0159afx")
            case 1:
                found[at:at] = chance.choice((b"\r\n", b"\n", b" ", b"\t", b"0", b"\x00", b"chunked", b"+"))
            case 2:
                del found[at]
            case _:
                line = bytes(found).rfind(b"\r\n", 0, at) + 2
                found[line:line] = chance.choice(
                    (b"Content-Length: 0\r\n", b"Content-Length: 7\r\n", b"Transfer-Encoding: chunked\r\n")
                )
    return bytes(found)
