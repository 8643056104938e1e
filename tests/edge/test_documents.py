import httpx
from starlette.applications import Starlette

from llmgateway.admin.routes import ROUTES
from llmgateway.edge.documents import routes
from llmgateway.edge.openapi import openapi

DOCUMENT = openapi(ROUTES, version="1.2", public_url="https://llm.example.org")


async def test_the_document_is_there() -> None:
    transport = httpx.ASGITransport(Starlette(routes=routes(DOCUMENT)))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        answer = await client.get("/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == DOCUMENT
