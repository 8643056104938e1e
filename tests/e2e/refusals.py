"""Requests made by hand, and what a refusal has to look like."""

from tests.e2e.deployment import CHAT, Tenant
from tests.lab.client import Answer, Request

SHAPE = {"message", "type", "param", "code"}


def check(answer: Answer, status: int, code: str | None = None) -> None:
    """OpenAI's shape, and a request id, on every refusal."""
    assert answer.status == status, answer.body
    error = answer.json["error"]
    assert set(error) == SHAPE
    assert isinstance(error["message"], str)
    assert code is None or error["code"] == code
    assert answer.header("content-type") == "application/json"
    assert answer.header("x-request-id")


async def send(tenant: Tenant, body: bytes, *, path: str = CHAT, **headers: str) -> Answer:
    """Bytes as a body; underscores in header names stand for hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await tenant.gateway.ask(Request("POST", path, tenant.key.secret, body=body, headers=named))


def head_of(tenant: Tenant, *fields: str, target: str = CHAT, method: str = "POST") -> bytes:
    lines = [
        f"{method} {target} HTTP/1.1",
        "host: lab",
        f"authorization: Bearer {tenant.key.secret}",
        "content-type: application/json",
        *fields,
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


async def is_well(tenant: Tenant) -> None:
    assert (await tenant.ask("ok-1")).status == 200
