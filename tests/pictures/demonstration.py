"""A gateway that has been in use for a month: made-up people, projects, keys and requests."""

import random
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio

from llmgateway.domain.call import Attempt, Record, TargetRef, Tokens
from llmgateway.stores.sqlite import open_sqlite
from tests.lab.client import Request, chat
from tests.lab.gateway import Gateway, IssuedKey
from tests.lab.upstream import ScriptedUpstream
from tests.stores.samples import record

CONFIG = """
currency: EUR
time_zone: Europe/Helsinki
drain: 1
drain_pause: 0
portal:
  terms:
    version: "2026-11"
    text: |
      # What this service is for
      The language models of the university are for study, teaching and research. Requests stay on our own servers
      unless the model's page says otherwise.

      # What you promise
      - Keep your keys to yourself, and revoke one that others may have seen.
      - Check what a model says before you rely on it.
      - Send personal data only to models whose data class allows it.

      # What we keep
      For every request: when it was, which model it used, how many tokens it had, what it cost and how it ended.
      What you ask and what the models answer is not kept.
models:
  - {id: qwen3-32b, aliases: [default], context: 32768, max_output: 8192, data_class: internal, owned_by: Research computing,
     price: {input: 0.20, cached_input: 0.05, output: 0.80}, targets: [{provider: echo}]}
  - {id: llama-3.3-70b, context: 131072, data_class: internal, owned_by: Research computing,
     price: {input: 0.60, output: 1.20}, targets: [{provider: echo}]}
  - {id: mistral-small, context: 32768, data_class: internal, owned_by: Research computing, price: {input: 0.10, output: 0.30},
     max_in_flight: 3, targets: [{url: "${LLM_DEFAULT_URL}/hold-after-3/v1"}, {url: "${LLM_DEFAULT_URL}/hold-after-5/v1"}]}
  - {id: bge-m3, context: 8192, owned_by: Research computing, price: {input: 0.02, output: 0}, targets: [{provider: echo}]}
limits:
  default: {requests_per_minute: 60, tokens_per_day: 1000000, cost_per_month: 10000000}
  projects: {thesis-lab: {cost_per_month: 30000000, tokens_per_day: 6000000}}
  models: {mistral-small: {concurrent_requests: 48}}
"""  # noqa: E501 - lines of YAML as operators write them
PASSWORD = "correct horse battery"
DAYS, PER_DAY = 30, 130
PRICES: Mapping[str, tuple[float, float]] = {
    "qwen3-32b": (0.2, 0.8), "llama-3.3-70b": (0.6, 1.2), "mistral-small": (0.1, 0.3), "bge-m3": (0.02, 0),
}  # fmt: skip
PEOPLE: Mapping[str, tuple[str, str | None]] = {
    "eino.laine": ("Eino Laine", "thesis-lab"), "aino.korhonen": ("Aino Korhonen", "thesis-lab"),
    "ville.nieminen": ("Ville Nieminen", None), "liisa.heikkinen": ("Liisa Heikkinen", "speech"),
    "matti.saarinen": ("Matti Saarinen", None), "oona.rantanen": ("Oona Rantanen", "speech"),
    "pekka.jarvinen": ("Pekka Järvinen", None), "sofia.ahonen": ("Sofia Ahonen", "thesis-lab"),
    "onni.lehtonen": ("Onni Lehtonen", None), "helmi.kallio": ("Helmi Kallio", None),
}  # fmt: skip
KEYS: Mapping[str, str] = {
    "eino.laine": "notebook",
    "aino.korhonen": "experiments",
    "ville.nieminen": "course",
    "liisa.heikkinen": "asr",
    "matti.saarinen": "laptop",
    "oona.rantanen": "evaluation",
    "pekka.jarvinen": "editor",
    "sofia.ahonen": "agents",
    "onni.lehtonen": "scripts",
    "helmi.kallio": "laptop",
}
LIVE = ("eino.laine", "aino.korhonen", "sofia.ahonen", "liisa.heikkinen")


async def people(gateway: Gateway) -> dict[str, IssuedKey]:
    """Everybody with a key; by user."""
    keys = {}
    for user, (name, project) in PEOPLE.items():
        body = {"id": user, "name": name, "email": f"{user}@example.edu", "project": project}
        assert (await gateway.admin("POST", "/users", body)).status == 201
        keys[user] = await gateway.create_key(user, KEYS[user])
    await gateway.admin("PATCH", "/users/helmi.kallio", {"state": "suspended"})
    await gateway.admin("PATCH", "/users/liisa.heikkinen", {"roles": ["user", "operator"]})
    await gateway.admin("PUT", "/limits/user/sofia.ahonen", {"tokens_per_day": 3_000_000})
    return keys


async def history(gateway: Gateway, keys: Mapping[str, str]) -> None:
    """Requests of the last month, more on weekdays. `keys` are ids, by user."""
    chance, now = random.Random(11), datetime.now(UTC)
    weights = [2 + 9 * chance.random() for _ in keys]
    made: list[Record] = []
    for days in range(DAYS):
        day = now - timedelta(days=days)
        count = int(PER_DAY * (0.25 if day.weekday() > 4 else 1) * (0.7 + 0.6 * chance.random()))
        for _ in range(count):
            user = chance.choices(list(keys), weights)[0]
            at = day - timedelta(hours=chance.random() * 12)
            made.append(_request(chance, at, user, keys[user]))
    async with open_sqlite(gateway.data / "llmgateway.db", 30) as store:
        await store.append(made)


def _request(chance: random.Random, at: datetime, user: str, key: str) -> Record:
    model = chance.choices(list(PRICES), [10, 5, 3, 4])[0]
    prompt = int(chance.lognormvariate(9.2, 1.0))
    completion = 0 if model == "bge-m3" else int(chance.lognormvariate(7.0, 0.8))
    seconds = 0.2 + completion / 60
    is_bad = chance.random() < 0.012
    price = PRICES[model]
    changes: dict[str, Any] = {
        "user": user, "key_id": key, "project": PEOPLE.get(user, ("", None))[1], "model": model,
        "price_id": f"{model}@1", "endpoint": "embeddings" if model == "bge-m3" else "chat/completions",
        "tokens": Tokens(prompt, 0 if is_bad else completion, prompt // 4),
        "cost": 0 if is_bad else int(prompt * price[0] + completion * price[1]), "stream": model != "bge-m3",
        "outcome": "upstream_error" if is_bad else "completed", "status": 502 if is_bad else 200,
        "target": TargetRef("openai", model, "gpu-node-4:8000"), "duration_ms": int(seconds * 1000),
        "attempts": [Attempt("gpu-node-4:8000", 502 if is_bad else 200, "ok", int(seconds * 1000))],
        "ended_at": at + timedelta(seconds=seconds), "ttft_ms": 60 + chance.randrange(400),
    }  # fmt: skip
    return record(chance, at, **changes)


async def refused(gateway: Gateway, user: str) -> None:
    """What somebody's programs were refused, until the overview knows."""
    key = await gateway.create_key(user, "night job", limits={"requests_per_minute": 1})
    for model in ("qwen3-32b", "qwen3-32b", "gpt-5"):
        await gateway.ask(Request("POST", "/v1/chat/completions", key.secret, json=chat(model)))
    await anyio.sleep(2.5)


@asynccontextmanager
async def streams(gateway: Gateway, secrets: Mapping[str, str]) -> AsyncIterator[None]:
    """Some that are under way for as long as the block lasts."""
    async with AsyncExitStack() as stack:
        for user in LIVE:
            connection = await stack.enter_async_context(await gateway.connect())
            asked = chat("mistral-small", stream=True)
            await connection.send(Request("POST", "/v1/chat/completions", secrets[user], json=asked))
            await anyio.sleep(0.4)
        yield


@asynccontextmanager
async def demonstration() -> AsyncIterator[Gateway]:
    async with (
        ScriptedUpstream() as upstream,
        Gateway.embedded({"LLM_DEFAULT_URL": upstream.url}, config=CONFIG) as gateway,
    ):
        yield gateway
