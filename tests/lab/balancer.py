"""A real load balancer in front of gateways: haproxy, which asks them whether they are ready."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from typing_extensions import override

from tests.lab.processes import absent, is_listening
from tests.lab.servers import Server

OFTEN = "100ms"  # between two looks at a gateway
SETTINGS = """
defaults
    mode http
    timeout connect 2s
    timeout client 60s
    timeout server 60s
    option redispatch
    retries 3
    retry-on conn-failure
frontend all
    bind 127.0.0.1:{port}
    default_backend gateways
backend gateways
    balance leastconn
    option httpchk GET /health/ready
    default-server check inter {often} fall 1 rise 1
"""


class Haproxy(Server):
    """It sends calls to those that say they are ready; what is under way it leaves alone."""

    def __init__(self, *ports: int) -> None:
        super().__init__()
        lines = [f"    server gateway-{number} 127.0.0.1:{port}" for number, port in enumerate(ports)]
        text = SETTINGS.format(port=self.port, often=OFTEN) + "\n".join([*lines, ""])
        (self.directory / "haproxy.cfg").write_text(text)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

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
