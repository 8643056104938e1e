"""The files that pages are made with: read once, named by what is in them, and kept by browsers for ever."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from llmgateway.domain.errors import NotFound

DIRECTORY = Path(__file__).with_name("static")
PREFIX = "/portal/static/"
TYPES: Mapping[str, str] = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
FOR_EVER = "public, max-age=31536000, immutable"


class Asset(Struct, frozen=True):
    body: bytes
    media_type: str


class Assets:
    """`url_of["app.css"]` is where pages find it."""

    def __init__(self, directory: Path = DIRECTORY) -> None:
        self._by_name: dict[str, Asset] = {}
        self.url_of: dict[str, str] = {}
        for path in sorted(directory.iterdir()):
            if path.suffix in TYPES:
                body = path.read_bytes()
                name = f"{path.stem}.{hashlib.sha256(body).hexdigest()[:12]}{path.suffix}"
                self._by_name[name] = Asset(body, TYPES[path.suffix])
                self.url_of[path.name] = PREFIX + name

    async def serve(self, request: Request) -> Response:
        asset = self._by_name.get(request.path_params["name"])
        if asset is None:
            raise NotFound("There is no such file.")
        headers = {"content-type": asset.media_type, "cache-control": FOR_EVER}
        return Response(asset.body, headers=headers)
