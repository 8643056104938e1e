"""`/openapi.json`, and `/docs`, a page that shows it: without a word from any other server."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

PAGE = Path(__file__).with_name("docs.html")
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; "
    "base-uri 'none'; frame-ancestors 'none'; form-action 'none'"
)


def routes(openapi: Mapping[str, Any]) -> list[BaseRoute]:
    """Both are made once."""
    document, page = msgspec.json.encode(openapi), PAGE.read_bytes()

    async def as_json(request: Request) -> Response:
        return Response(document, media_type="application/json")

    async def for_reading(request: Request) -> Response:
        return Response(page, media_type="text/html", headers={"content-security-policy": POLICY})

    return [Route("/openapi.json", as_json), Route("/docs", for_reading)]
