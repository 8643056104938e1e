"""`unshare --map-root-user --net python -m tests.disasters OUT [WORD]`: plays the scenes that WORD is in,
one after the other, and writes what was seen as JSON."""

import asyncio
import json
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

from tests.disasters.network import HUB, HubValkey, Node, Placed, switch
from tests.disasters.scenes import PLAIN, SCENES, STREAM, Stage, play
from tests.disasters.trio import trio
from tests.lab.balancer import Haproxy
from tests.lab.gateway import serving
from tests.lab.upstream import ScriptedUpstream

CONFIG = "drain_pause: 0\nstores: {redis_timeout: 0.5, mongo_timeout: 2}\n"


async def main(out: Path, word: str) -> None:
    switch()
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        valkey, mongo = stack.enter_context(HubValkey()), stack.enter_context(trio())
        upstream = await stack.enter_async_context(ScriptedUpstream(host=HUB))
        environment = serving(upstream.url, PLAIN, STREAM)
        nodes = [stack.enter_context(Node(number, directory)) for number in (1, 2)]
        gateways = [
            await stack.enter_async_context(
                Placed.fleet(
                    environment, redis_url=valkey.url(), mongo_url=mongo.url("disasters"), config=CONFIG
                ).on(node)
            )
            for node in nodes
        ]
        places = [f"{gateway.address}:{gateway.port}" for gateway in gateways]
        balancer = stack.enter_context(Haproxy(*places))
        stage = Stage(nodes, gateways, valkey, mongo, upstream, balancer)
        seen = {}
        for scene in SCENES:
            if word in scene.name:
                seen[scene.name] = (await play(stage, scene)).told()
                print(scene.name, seen[scene.name], flush=True)
        out.write_text(json.dumps(seen))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else ""))
