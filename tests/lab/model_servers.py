"""Real model servers on the tiny model: llama-server (from xllamacpp) and llama-cpp-python's own server."""

import importlib.util
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from typing_extensions import override

from tests.lab.listening import Listening
from tests.lab.processes import ROOT, absent
from tests.lab.tiny_model import CONTEXT, write_tiny_model

ALIAS = "tiny-llm"


class ModelServer(Listening):
    """A model server for one model."""

    @override
    def _prepare(self) -> None:
        self.model = write_tiny_model(self.directory / "tiny.gguf")

    @override
    def _cwd(self) -> Path:
        return ROOT

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        """What a target's `url` is set to."""
        return f"{self.url}/v1"

    @override
    def _is_ready(self) -> bool:
        """It lists its model."""
        question = b"GET /v1/models HTTP/1.0\r\nhost: lab\r\n\r\n"
        try:
            with socket.create_connection(("127.0.0.1", self.port), 2) as plug:
                plug.sendall(question)
                return b" 200 " in plug.recv(64)
        except OSError:
            return False


class LlamaServer(ModelServer):
    """It reports usage in streams, counts with `/tokenize`, and knows no `/extras`."""

    @override
    def _executable(self) -> Path:
        found = importlib.util.find_spec("xllamacpp")
        return Path(sys.executable) if found else absent("xllamacpp", "pip install xllamacpp")

    @override
    def _arguments(self) -> Sequence[str | Path]:
        return ["-m", "tests.lab.llama_process", self.model, ALIAS, str(self.port)]


class LlamaCppPython(ModelServer):
    """It reports no usage in streams, and counts with `/extras/tokenize/count`.

    By default a second request cuts the stream that is running; with `queueing` it waits for it.
    """

    def __init__(self, *, queueing: bool = True) -> None:
        self.queueing = queueing
        super().__init__()

    @override
    def _executable(self) -> Path:
        """Its build takes minutes, so it has an environment of its own."""
        found = Path(os.environ.get("LLAMA_CPP_PYTHON", ROOT / ".venv-llama/bin/python"))
        return found if found.exists() else absent("llama-cpp-python", "make test-deps")

    @override
    def _arguments(self) -> Sequence[str | Path]:
        return [
            "-m",
            "llama_cpp.server",
            "--model",
            self.model,
            "--model_alias",
            ALIAS,
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--n_ctx",
            str(CONTEXT),
            "--n_threads",
            "1",
            "--interrupt_requests",
            str(not self.queueing),
        ]
