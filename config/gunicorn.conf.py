"""gunicorn for production: `gunicorn -c config/gunicorn.conf.py llmgateway.asgi:app`."""

import math
import mmap
import sys
from pathlib import Path

from llmgateway.app.services import METRICS
from llmgateway.observability.exposition import retire, wipe
from llmgateway.observability.logs import configure
from llmgateway.settings import BadSettings, Settings, of_this_process, with_secrets
from llmgateway.settings.cpu_limit import cpus

ORDERLY_SECONDS = 30  # for what comes after the drain: last records, closing


def load() -> Settings:
    try:
        return with_secrets(Settings.load(of_this_process()))
    except BadSettings as bad:
        for complaint in bad.complaints:
            sys.stderr.write(f"llmgateway: {complaint}\n")
        raise SystemExit(2) from None


settings = load()
cut = mmap.mmap(-1, 1)  # shared with the workers: not 0 when one of them cut calls off at its end
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


def worker_exit(server: object, worker: object) -> None:
    """Runs in the worker."""
    if worker.wsgi is not None and (worker.wsgi.has_cut or worker.wsgi.has_left):  # type: ignore[attr-defined]
        cut[0] = 1


def on_exit(server: object) -> None:
    if cut[0]:
        sys.exit(1)
