"""A real load balancer in front of gateways: haproxy, which asks them whether they are ready."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from typing_extensions import override

from tests.lab.client import Request, fetch
from tests.lab.processes import absent, free_port, is_listening
from tests.lab.servers import Server

OFTEN = "100ms"  # between two looks at a gateway
SETTINGS = """
defaults
    mode http
    timeout connect 2s
    timeout client 60s
    timeout server 60s
    timeout check 2s
    option redispatch
    retries 3
    retry-on conn-failure
frontend told
    bind 127.0.0.1:{told}
    stats enable
    stats uri /
frontend all
    bind 127.0.0.1:{port}
    default_backend gateways
backend gateways
    balance leastconn
    option httpchk GET /health/ready
    default-server check inter {often} fall 2 rise 1
"""


class Haproxy(Server):
    """It sends calls to those that say they are ready; what is under way it leaves alone."""

    def __init__(self, *gateways: int | str) -> None:
        """Ports of this machine, or addresses with ports."""
        super().__init__()
        self._told = free_port()
        places = [f"127.0.0.1:{one}" if isinstance(one, int) else one for one in gateways]
        lines = [f"    server gateway-{number} {place}" for number, place in enumerate(places)]
        text = SETTINGS.format(port=self.port, told=self._told, often=OFTEN) + "\n".join([*lines, ""])
        (self.directory / "haproxy.cfg").write_text(text)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def up(self) -> int:
        """How many gateways it sends calls to."""
        page = await fetch(f"http://127.0.0.1:{self._told}", Request("GET", "/;csv"))
        servers = [line.split(",") for line in page.body.decode().splitlines() if ",gateway-" in line]
        return sum("UP" in fields for fields in servers)

    @override
    def _executable(self) -> Path:
        found = shutil.which("haproxy")
        return (
            Path(found) if found else absent("haproxy", "apt-get install -y --no-install-recommends haproxy")
        )

    @override
    def _arguments(self) -> Sequence[str | Path]:
        return ["-db", "-f", self.directory / "haproxy.cfg"]

    @override
    def _is_ready(self) -> bool:
        return is_listening(self.port)
