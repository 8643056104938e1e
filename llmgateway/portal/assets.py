"""The files that pages are made with: read once, named by what is in them, and kept by browsers for ever."""

import asyncio
import gzip
import hashlib
import re
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
LEVEL = 6  # the best is not a hundredth smaller
CODING = re.compile(r"(?:^|,)\s*([\w*-]+)\s*(?:;\s*q=([\d.]+)\s*)?(?=,|$)")


class Asset(Struct, frozen=True):
    body: bytes
    media_type: str


class Assets:
    """`url_of["app.css"]` is where pages find it. What a file is as gzip is found out when it is first asked
    for: starting must not wait for that."""

    def __init__(self, directory: Path = DIRECTORY) -> None:
        self._by_name: dict[str, Asset] = {}
        self._zipped: dict[str, bytes] = {}
        self.url_of: dict[str, str] = {}
        for path in sorted(directory.rglob("*")):
            if path.suffix in TYPES:
                body = path.read_bytes()
                name = f"{path.stem}.{hashlib.sha256(body).hexdigest()[:12]}{path.suffix}"
                self._by_name[name] = Asset(body, TYPES[path.suffix])
                self.url_of[path.name] = PREFIX + name

    async def serve(self, request: Request) -> Response:
        name = request.path_params["name"]
        asset = self._by_name.get(name)
        if asset is None:
            raise NotFound("There is no such file.")
        headers = {"content-type": asset.media_type, "cache-control": FOR_EVER, "vary": "Accept-Encoding"}
        if not takes_gzip(request.headers.get("accept-encoding", "")):
            return Response(asset.body, headers=headers)
        return Response(await self.zipped(name), headers={**headers, "content-encoding": "gzip"})

    async def zipped(self, name: str) -> bytes:
        if name not in self._zipped:
            body = self._by_name[name].body
            self._zipped[name] = await asyncio.to_thread(gzip.compress, body, LEVEL, mtime=0)
        return self._zipped[name]


def takes_gzip(accepted: str) -> bool:
    """By an Accept-Encoding: named, or meant by a star, and with a weight that is not nothing."""
    weights = dict(CODING.findall(accepted.lower()))
    weight = weights.get("gzip", weights.get("*"))
    return weight is not None and (weight == "" or weight.strip("0.") != "")
