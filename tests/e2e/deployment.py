"""What the shared gateways serve, and one test's own view of them: its key, its calls, its records."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tests.lab.client import Answer, Request, chat, post
from tests.lab.exchange import Call
from tests.lab.gateway import Gateway, IssuedKey, Json, serving
from tests.lab.upstream import ScriptedUpstream

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"

ANSWERING = (
    "ok-1",
    "ok-3",
    "ok-5",
    "ok-3000",
    "no-usage",
    "no-usage~counted",
    "no-done",
    "usage-with-choices",
    "echo-headers",
    "hold-before-headers",
    "hold-before-headers~plain",
)
REFUSING = tuple(
    f"status-{code}" for code in (400, 401, 403, 404, 409, 413, 422, 429, 500, 502, 503, 504, 529)
)
FLAKY = (
    "flaky-2x503~python",
    "flaky-2x503~node",
    "status-429-retry-after-1",
    "status-429-retry-after-1~node",
    "status-429-retry-after-1000000000",
)
BREAKING = (
    "die-after-0",
    "die-after-7",
    "reset-after-4",
    "reset-mid-chunk",
    "truncated-length",
    "rst-before-headers",
    "close-before-headers",
    "error-event-first",
    "error-event-after-3",
    "error-event-after-3~node",
    "html-200",
    "json-to-stream",
    "gzip",
    "redirect",
    "status-500-html",
    "usage-bad-negative",
    "usage-bad-huge",
    "usage-bad-string",
    "two-responses",
    "cl-and-te",
    "http10",
)
HOLDING = ("hold-after-0", "hold-after-1", *(f"hold-after-{k}~hang" for k in range(7)))
SCRIPTED = tuple(f"scripted-{number}" for number in range(10))
MODELS = ANSWERING + REFUSING + FLAKY + BREAKING + HOLDING + SCRIPTED

# What only a file can say. `keepalive` is short, so comment frames may stand between any two events.
CONFIG = """
drain_pause: 0
drain: 20
keepalive: 0.4
max_body: 256KiB
sign_in: {local: true, sign_up: true}
models:
  - id: org/model-1
    targets: [{url: "${LLM_DEFAULT_URL}/ok-3~org/v1"}]
    context: 4096
  - id: priced
    aliases: [cheap]
    price: {input: 1, output: 2.5, request: 0.01}
    targets: [{url: "${LLM_DEFAULT_URL}/ok-5~priced/v1"}]
  - id: bounded
    max_output: 64
    max_choices: 4
    targets: [{url: "${LLM_DEFAULT_URL}/ok-3~bounded/v1"}]
  - id: drained
    on_hangup: drain
    targets: [{url: "${LLM_DEFAULT_URL}/hold-after-2~drained/v1"}]
  - id: drained-whole
    on_hangup: drain
    targets: [{url: "${LLM_DEFAULT_URL}/hold-before-headers~drained/v1"}]
  - id: unreachable
    targets: [{url: "http://127.0.0.1:1/v1"}]
  - id: stalls
    deadlines: {idle: 0.6}
    targets: [{url: "${LLM_DEFAULT_URL}/stall-after-3/v1"}]
  - id: silent
    deadlines: {first_byte: 0.6}
    targets: [{url: "${LLM_DEFAULT_URL}/accept-and-hang/v1"}]
  - id: lasting
    deadlines: {total: 0.8}
    targets: [{url: "${LLM_DEFAULT_URL}/ok-1000x20ms/v1"}]
  - id: falls-back
    targets:
      - {url: "${LLM_DEFAULT_URL}/rst-before-headers~first/v1"}
      - {url: "${LLM_DEFAULT_URL}/ok-3~second/v1"}
  - id: falls-back-on-503
    targets:
      - {url: "${LLM_DEFAULT_URL}/status-503~first/v1"}
      - {url: "${LLM_DEFAULT_URL}/ok-3~second/v1"}
  - id: breaks-late
    targets:
      - {url: "${LLM_DEFAULT_URL}/die-after-2~first/v1"}
      - {url: "${LLM_DEFAULT_URL}/ok-3~spare/v1"}
  - id: two-replicas
    targets:
      - {url: "${LLM_DEFAULT_URL}/hold-after-1~left/v1"}
      - {url: "${LLM_DEFAULT_URL}/hold-after-1~right/v1"}
  - id: one-is-broken
    targets:
      - {url: "${LLM_DEFAULT_URL}/status-500~bad/v1"}
      - {url: "${LLM_DEFAULT_URL}/ok-1~good/v1"}
"""

Kind = Literal["embedded", "fleet"]


@dataclass(frozen=True)
class Deployment:
    """A running gateway that tests share, in front of a scripted upstream of its own."""

    kind: Kind
    gateway: Gateway
    upstream: ScriptedUpstream


class Tenant:
    """One test's user. Other tests have others, so its records and its calls can be counted."""

    def __init__(self, deployment: Deployment, key: IssuedKey) -> None:
        self.kind = deployment.kind
        self.gateway = deployment.gateway
        self.upstream = deployment.upstream
        self.key = key
        self._before = len(self.upstream.calls)

    @property
    def user(self) -> str:
        return str(self.key.document["user"])

    @property
    def calls(self) -> list[Call]:
        """What has come to the upstream since this test began."""
        return self.upstream.calls[self._before :]

    async def seen(self, count: int) -> list[Call]:
        """Waits until so many of its calls have come to the upstream."""
        await self.upstream.seen(self._before + count)
        return self.calls

    def asking(
        self, model: str, *, path: str = CHAT, headers: Mapping[str, str] | None = None, **more: Any
    ) -> Request:
        body = chat(model, **more)
        return Request("POST", path, self.key.secret, body, headers=headers or {})

    async def ask(self, model: str, **more: Any) -> Answer:
        return await self.gateway.ask(self.asking(model, **more))

    async def post(self, path: str, body: Any) -> Answer:
        return await self.gateway.ask(post(path, body, self.key.secret))

    async def records(self, count: int, seconds: float = 10) -> list[Json]:
        """Its records, oldest first: so many, and each of its own id."""
        found = await self.gateway.ledger(count, seconds, user=self.user)
        assert len(found) == count, f"{len(found)} records instead of {count}"
        assert len({record["id"] for record in found}) == count
        return found

    async def record(self) -> Json:
        """Its only record."""
        return (await self.records(1))[0]


def environment_of(upstream: ScriptedUpstream, **more: str) -> dict[str, str]:
    return serving(upstream.url, *MODELS, **more)


def figures(record: Json) -> tuple[str, int, int, int, str]:
    """What an ending is told by: outcome, status, tokens of prompt and completion, and who counted."""
    tokens = record["tokens"]
    return record["outcome"], record["status"], tokens["prompt"], tokens["completion"], record["usage_source"]


async def all_at_once(*works: Any) -> list[Any]:
    return list(await asyncio.gather(*works))
