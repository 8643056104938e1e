"""Real model servers on the tiny model: llama-server (from xllamacpp) and llama-cpp-python's own server."""

import importlib.util
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from typing_extensions import override

from tests.lab.processes import ROOT, Program, absent, free_port
from tests.lab.tiny_model import CONTEXT, write_tiny_model

ALIAS = "tiny-llm"


class ModelServer:
    """A model server for one model; leaving the block kills it."""

    def __init__(self) -> None:
        interpreter = self._interpreter()
        self.port = free_port()
        self.directory = Path(tempfile.mkdtemp(prefix="lab-"))
        self.model = write_tiny_model(self.directory / "tiny.gguf")
        self.program = Program([interpreter, *self._arguments()], self.directory / "log", cwd=ROOT)

    def _interpreter(self) -> Path:
        """The Python that has the server; skips the test when there is none."""
        raise NotImplementedError

    def _arguments(self) -> Sequence[str | Path]:
        raise NotImplementedError

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self._clear()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clear()

    def _clear(self) -> None:
        self.program.kill()
        shutil.rmtree(self.directory)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        """What a target's `url` is set to."""
        return f"{self.url}/v1"

    def start(self) -> None:
        self.program.start()
        self.program.wait_until_ready(self._lists_models)

    def _lists_models(self) -> bool:
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
    def _interpreter(self) -> Path:
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
    def _interpreter(self) -> Path:
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
