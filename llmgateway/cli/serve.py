"""`llmgateway serve`: the gateway in one process, and what a newcomer needs to know of it."""

import asyncio
import shlex
import socket
from collections.abc import Callable, Mapping
from typing import Any

import uvicorn
from typing_extensions import override

from llmgateway import __version__
from llmgateway.app import Llmgateway, create_app
from llmgateway.app.in_force import InForce
from llmgateway.app.memory import alone, open_memory
from llmgateway.app.services import JOURNAL, control_over
from llmgateway.cli.opened import ACTOR
from llmgateway.cli.options import Arguments, option_of, overrides_of, settings_of
from llmgateway.cli.printing import complain, say
from llmgateway.control.keys import NewKey
from llmgateway.domain.ports import SystemClock
from llmgateway.domain.secret import Secret
from llmgateway.edge.draining import DrainingServer, config_of
from llmgateway.edge.server import BACKLOG
from llmgateway.observability.logs import configure
from llmgateway.settings import Settings
from llmgateway.stores.survey import left_behind

FIRST_USER = "admin"
QUESTION = '{"model": "echo", "messages": [{"role": "user", "content": "Hello!"}]}'


class TellingServer(DrainingServer):
    """Says something when it listens."""

    def __init__(self, config: uvicorn.Config, app: Llmgateway, on_start: Callable[[], None]) -> None:
        super().__init__(config, app)
        self._on_start = on_start

    @override
    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_start()


def serve(arguments: Arguments) -> int:
    settings = settings_of(arguments)
    with alone(settings):
        pass  # says in words what the start would fail with
    configure(settings.log_level, settings.log_format)
    try:
        listener = listen(settings.host, settings.port)
    except OSError as error:
        where, why = f"{settings.host}:{settings.port}", error.strerror or error
        complain(f"cannot listen on {where}: {why}; see --host and --port")
        return 1
    with listener:
        app = create_app(settings, drain_pause=0)
        config = config_of(app)
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            has_started = runner.run(_serve(settings, app, config, listener, overrides_of(arguments)))
    return 1 if not has_started or left_behind(settings.data_dir / JOURNAL) else 0


async def _serve(
    settings: Settings,
    app: Llmgateway,
    config: uvicorn.Config,
    listener: socket.socket,
    overrides: Mapping[str, str],
) -> bool:
    """Whether it came to serve."""
    key = await first_key(settings)
    url = url_of(listener)

    def tell() -> None:
        for line in welcome(settings, url, key, overrides):
            say(line)

    server = TellingServer(config, app, tell)
    await server.serve(sockets=[listener])
    return server.started


async def first_key(settings: Settings) -> Secret | None:
    """A key for who starts an embedded gateway for the first time: as long as there is none at all."""
    if settings.is_production:
        return None
    async with open_memory(settings) as memory:
        store, state = memory.store, memory.state
        if (await store.find("keys", {}, limit=1)).data:
            return None
        control = control_over(InForce(settings), store, state, SystemClock())
        issued = await control.keys.create(ACTOR, NewKey(user=FIRST_USER, name="first"))
        return issued.token


def listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=BACKLOG)


def url_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"


def welcome(settings: Settings, url: str, key: Secret | None, overrides: Mapping[str, str]) -> list[str]:
    """A few lines: where it is, and how to begin."""
    names = [model.id for model in InForce(settings).configuration().base_models]
    admin_key = settings.data_dir / "admin_key"
    kept = f"the credential is in {admin_key}" if admin_key.exists() else "the credential is ADMIN_KEY"
    lines = [
        f"llmgateway {__version__} listens on {url}",
        f"  programs   base_url {url}/v1, models: {', '.join(names[:8])}{' ...' if len(names) > 8 else ''}",
        f"  people     {url}/portal",
        f"  operators  {url}/admin, {kept}",
    ]
    if key is None:
        command = f"llmgateway keys create --user {FIRST_USER} --name NAME{_again(overrides)}"
        return [*lines, f"  another key:  {command}"]
    return [
        *lines,
        f"  your API key, shown this once:  {key.reveal()}",
        "  try it:",
        f"    curl {url}/v1/chat/completions -H 'Authorization: Bearer {key.reveal()}' "
        f"-H 'Content-Type: application/json' -d '{QUESTION}'",
    ]


def _again(overrides: Mapping[str, str]) -> str:
    """The options that another command needs to find the same stores."""
    kept = ("LLMGATEWAY_DATA_DIR", "LLMGATEWAY_CONFIG")
    return "".join(f" {option_of(name)} {shlex.quote(overrides[name])}" for name in kept if name in overrides)
