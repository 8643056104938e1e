"""`python -m tests.pictures.dashboards`: docs/pictures/dashboard-*.svg, drawn from the dashboards' own
queries, which a real Prometheus answers in front of a fleet under load. It takes three minutes."""

import asyncio
import random
import time
from pathlib import Path

from tests.deploy.boards import DASHBOARDS, Dashboard, filled, load
from tests.e2e.deployment import CHAT
from tests.lab.client import chat, post
from tests.lab.gateway import Gateway
from tests.lab.prometheus import Prometheus
from tests.lab.servers import Mongod, Valkey
from tests.lab.upstream import ScriptedUpstream
from tests.pictures.board import Answers, drawn

PICTURES = Path(__file__).parents[2] / "docs/pictures"
SECONDS, STEP, RATE = 150, 2, "20s"
CONFIG = """
drain_pause: 0
limits: {users: {greedy: {requests_per_minute: 90}}}
models:
  - {id: qwen3-32b, max_in_flight: 6, targets: [{url: "${LLM_DEFAULT_URL}/ok-40x20ms~qwen/v1"}]}
  - {id: mistral-small, targets: [{url: "${LLM_DEFAULT_URL}/ok-20x20ms~mistral/v1"}]}
  - id: gemma-3-12b
    targets:
      - {url: "${LLM_DEFAULT_URL}/status-503~gemma/v1"}
      - {url: "${LLM_DEFAULT_URL}/ok-20x20ms~gemma/v1"}
  - {id: bge-m3, targets: [{url: "${LLM_DEFAULT_URL}/ok-1~bge/v1"}]}
  - {id: on-trial, targets: [{url: "${LLM_DEFAULT_URL}/die-after-7~trial/v1"}]}
"""
PEOPLE = {"qwen3-32b": 12, "mistral-small": 5, "gemma-3-12b": 3, "bge-m3": 2, "on-trial": 1}


async def person(gateway: Gateway, key: str, model: str, chance: random.Random) -> None:
    """Asks, reads, thinks; hangs up now and then."""
    while True:
        await asyncio.sleep(chance.expovariate(1 / 0.6))
        asked = post(CHAT, chat(model, stream=model != "bge-m3"), key)
        async with await gateway.connect() as connection:
            await connection.send(asked)
            head = await connection.head()
            if head.status == 200 and chance.random() < 0.05:
                await connection.events(2)
            else:
                await connection.body()


async def watch(gateway: Gateway, prometheus: Prometheus) -> dict[str, tuple[Dashboard, Answers]]:
    chance = random.Random(7)
    users = ["aino", "eetu", "greedy"]
    keys = {user: (await gateway.create_key(user)).secret for user in users}
    people = [
        asyncio.ensure_future(person(gateway, keys[users[number % 3]], model, random.Random(chance.random())))
        for model, count in PEOPLE.items() for number in range(count)
    ]  # fmt: skip
    began = time.time()
    await asyncio.sleep(SECONDS)
    found = {}
    for path in DASHBOARDS:
        dashboard, answers = load(path), Answers()
        for panel in dashboard["panels"]:
            for target in panel["targets"]:
                query = filled(target["expr"], rate_interval=RATE, range=f"{SECONDS}s")
                answers[target["expr"]] = await prometheus.history(query, began + 15, time.time(), STEP)
        found[path.stem] = dashboard, answers
    for one in people:
        one.cancel()
    await asyncio.wait(people)
    return found


async def main() -> None:
    with Valkey() as valkey, Mongod() as mongod:
        async with (
            ScriptedUpstream() as upstream,
            Gateway.fleet(
                {"LLM_DEFAULT_URL": upstream.url}, redis_url=valkey.url(), mongo_url=mongod.url("shown"),
                config=CONFIG,
            ) as gateway,
        ):  # fmt: skip
            with Prometheus(f"127.0.0.1:{gateway.port}") as prometheus:
                found = await watch(gateway, prometheus)
    for name, (dashboard, answers) in found.items():
        (PICTURES / f"dashboard-{name}.svg").write_text(drawn(dashboard, answers))


if __name__ == "__main__":
    asyncio.run(main())
