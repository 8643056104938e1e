"""The commands, run as an operator runs them beside a gateway: same environment, same data directory."""

import subprocess
import sys
from collections.abc import Mapping

from tests.lab.gateway import Gateway

SECONDS = 30.0


def run(gateway: Gateway, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What a command says and its exit code."""
    return run_in({**gateway.program.environment, **environment}, *words, cwd=str(gateway.directory))


def run_in(environment: Mapping[str, str], *words: str, cwd: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "llmgateway", *words]
    return subprocess.run(
        argv, cwd=cwd, env=dict(environment), capture_output=True, text=True, timeout=SECONDS, check=False
    )
