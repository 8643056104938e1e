"""The peers: other people's proxies and gateways, one worker or thread each."""

import os
import shutil
import string
from pathlib import Path

from tests.bench.cases import HERE
from tests.bench.contender import Contender, Launch
from tests.bench.machine import Bed, free_port

ENVIRONMENTS = Path(os.environ.get("BENCH_ENVS", HERE / ".envs")).resolve()
KEY = "sk-bench-7c1d5e90ab34f268"
SEARCH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))


def system_program(name: str) -> str | None:
    return shutil.which(name, path=SEARCH)


def needs_program(name: str, package: str) -> str | None:
    return None if system_program(name) else f"install {package} (apt-get install {package})"


def needs_environment(folder: str, program: str, packages: str) -> str | None:
    if (ENVIRONMENTS / folder / "bin" / program).exists():
        return None
    return f"python3 -m venv $BENCH_ENVS/{folder} && $BENCH_ENVS/{folder}/bin/pip install {packages}"


def write_settings(bed: Bed, name: str) -> str:
    """Fills in a file of peers/; returns where it lies on the bed."""
    template = string.Template((HERE / "peers" / name).read_text())
    filled = bed.folder / name
    filled.write_text(
        template.substitute(folder=bed.folder, port=bed.port, upstream=bed.upstream_port, key=KEY)
    )
    return str(filled)


def nginx(bed: Bed) -> Launch:
    program = system_program("nginx") or "nginx"
    argv = (program, "-e", "stderr", "-p", str(bed.folder), "-c", write_settings(bed, "nginx.conf"))
    return Launch(argv, ready="/health")


def haproxy(bed: Bed) -> Launch:
    program = system_program("haproxy") or "haproxy"
    return Launch((program, "-db", "-f", write_settings(bed, "haproxy.cfg")), ready="/health")


def sglang_router(bed: Bed) -> Launch:
    options = {
        "worker-urls": f"http://127.0.0.1:{bed.upstream_port}",
        "host": "127.0.0.1",
        "port": bed.port,
        "policy": "round_robin",
        "api-key": KEY,
        "log-level": "warn",
        "prometheus-port": free_port(),
        "max-concurrent-requests": 8192,
        "queue-size": 8192,
        "health-check-interval-secs": 3600,
    }
    words = tuple(word for name, value in options.items() for word in (f"--{name}", str(value)))
    python = str(ENVIRONMENTS / "sglang" / "bin" / "python")
    argv = (python, "-m", "sglang_router.launch_router", *words, "--disable-retries")
    return Launch(argv, ready="/v1/models", key=KEY, patience=60)


def litellm(bed: Bed) -> Launch:
    program = str(ENVIRONMENTS / "litellm" / "bin" / "litellm")
    config = write_settings(bed, "litellm.yaml")
    argv = (program, "--config", config, "--host", "127.0.0.1", "--port", str(bed.port), "--num_workers", "1")
    env = {
        "LITELLM_LOG": "ERROR",
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_TELEMETRY": "False",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "NO_DOCS": "True",
    }
    return Launch(argv, ready="/health/liveliness", env=env, key=KEY, patience=120)


PEERS = (
    Contender("direct", lambda: None, None),
    Contender("nginx", lambda: needs_program("nginx", "nginx-light"), nginx),
    Contender("haproxy", lambda: needs_program("haproxy", "haproxy"), haproxy),
    Contender(
        "sglang-router",
        lambda: needs_environment(
            "sglang", "sglang-router", "sglang-router setproctitle requests aiohttp fastapi orjson uvicorn"
        ),
        sglang_router,
    ),
    Contender("litellm", lambda: needs_environment("litellm", "litellm", "'litellm[proxy]'"), litellm),
)
