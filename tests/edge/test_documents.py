import re

import httpx
from starlette.applications import Starlette

from llmgateway.admin.routes import ROUTES
from llmgateway.edge.documents import PAGE, routes
from llmgateway.edge.openapi import openapi

DOCUMENT = openapi(ROUTES, version="1.2", public_url="https://llm.example.org")


async def get(path: str) -> httpx.Response:
    transport = httpx.ASGITransport(Starlette(routes=routes(DOCUMENT)))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        return await client.get(path)


async def test_the_document_is_there() -> None:
    answer = await get("/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == DOCUMENT


async def test_the_page_needs_nothing_from_elsewhere() -> None:
    answer = await get("/docs")
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "/openapi.json" in answer.text
    assert not re.search(r"https?://", PAGE.read_text())
