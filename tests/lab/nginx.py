"""A real reverse proxy in front of a gateway: nginx, which keeps its connections to it."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from typing_extensions import override

from tests.lab.listening import Listening
from tests.lab.processes import absent

INSTALL = "apt-get install -y --no-install-recommends nginx-light"
SETTINGS = """
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream gateway {{ server 127.0.0.1:{gateway}; keepalive 64; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://gateway;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_request_buffering off;
        }}
    }}
}}
"""


class Nginx(Listening):
    """It passes bodies on as they come."""

    def __init__(self, gateway: int) -> None:
        self._gateway = gateway
        super().__init__()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @override
    def _prepare(self) -> None:
        text = SETTINGS.format(folder=self.directory, port=self.port, gateway=self._gateway)
        (self.directory / "nginx.conf").write_text(text)

    @override
    def _executable(self) -> Path:
        path = os.pathsep.join((os.environ["PATH"], "/usr/sbin", "/usr/local/sbin"))
        found = shutil.which("nginx", path=path)
        return Path(found) if found else absent("nginx", INSTALL)

    @override
    def _arguments(self) -> Sequence[str | Path]:
        return ["-p", self.directory, "-c", self.directory / "nginx.conf"]
