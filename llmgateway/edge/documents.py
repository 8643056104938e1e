"""`/openapi.json`; the portal shows it to people at `/docs`."""

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route


def routes(openapi: Mapping[str, Any]) -> list[BaseRoute]:
    """It is made once."""
    document = msgspec.json.encode(openapi)

    async def as_json(request: Request) -> Response:
        return Response(document, media_type="application/json")

    return [Route("/openapi.json", as_json)]
