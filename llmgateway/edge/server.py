"""uvicorn as the gateway runs it."""

from typing import Any

import uvicorn

from llmgateway.edge.protocol import ClientConnection

BACKLOG = 4096

OPTIONS: dict[str, Any] = {
    "http": ClientConnection,
    "loop": "uvloop",
    "ws": "none",
    "lifespan": "on",
    "log_config": None,
    "access_log": False,
    "proxy_headers": False,
    "server_header": False,
    "backlog": BACKLOG,
}


def server(app: Any, host: str, port: int, *, drain: float) -> uvicorn.Server:
    return uvicorn.Server(
        uvicorn.Config(app, host=host, port=port, timeout_graceful_shutdown=int(drain) + 5, **OPTIONS)
    )
