"""gunicorn for production: `gunicorn -c config/gunicorn.conf.py llmgateway.asgi:app`."""

import math
import sys
from pathlib import Path

from llmgateway.app.services import JOURNAL, METRICS
from llmgateway.observability.exposition import retire, wipe
from llmgateway.observability.logs import configure
from llmgateway.settings import BadSettings, Settings, of_this_process, with_secrets
from llmgateway.settings.cpu_limit import cpus
from llmgateway.stores.survey import left_behind

ORDERLY_SECONDS = 30  # for what comes after the drain: last records, closing


def load() -> Settings:
    try:
        return with_secrets(Settings.load(of_this_process()))
    except BadSettings as bad:
        for complaint in bad.complaints:
            sys.stderr.write(f"llmgateway: {complaint}\n")
        raise SystemExit(2) from None


settings = load()
metrics = settings.data_dir / METRICS

bind = f"[{settings.host}]:{settings.port}" if ":" in settings.host else f"{settings.host}:{settings.port}"
workers = settings.workers or cpus()
worker_class = "llmgateway.edge.worker.GatewayWorker"
backlog = 4096
timeout = 30  # seconds without a sign of life; workers give one every second, also while they drain
graceful_timeout = math.ceil(settings.drain_pause + settings.drain) + ORDERLY_SECONDS
keepalive = 75
control_socket_disable = True
preload_app = False  # sockets, files and locks belong to the worker that opened them
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - gunicorn's signs of life, off the disk


def on_starting(server: object) -> None:
    configure(settings.log_level, settings.log_format)
    wipe(metrics)


def child_exit(server: object, worker: object) -> None:
    retire(metrics, worker.pid)  # type: ignore[attr-defined]


def on_exit(server: object) -> None:
    """Calls that were cut off are no failure: they are settled. Workers that had to be killed and what waits
    in a journal are one."""
    if server.WORKERS or left_behind(settings.data_dir / JOURNAL):  # type: ignore[attr-defined]
        sys.exit(1)
