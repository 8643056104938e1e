"""A program with a port and a directory of its own: a store, a model server, an identity provider."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.lab.processes import Program, clean_environment, free_port, is_listening


class Listening:
    """Entering the block starts it and waits until it answers; leaving it kills it and removes its directory.

    The port and the directory outlive the program, so that it can come back.
    """

    def __init__(self) -> None:
        executable = self._executable()
        self.port = free_port()
        self.directory = Path(tempfile.mkdtemp(prefix="lab-"))
        self._prepare()
        self.program = Program(
            [executable, *self._arguments()], self.directory / "log", cwd=self._cwd(),
            environment=clean_environment(**self._environment()),
        )  # fmt: skip

    def _executable(self) -> Path:
        """Skips the test when it, or what it runs, is not there."""
        raise NotImplementedError

    def _arguments(self) -> Sequence[str | Path]:
        raise NotImplementedError

    def _prepare(self) -> None:
        """Writes what the arguments name."""

    def _cwd(self) -> Path:
        return self.directory

    def _environment(self) -> Mapping[str, str]:
        return {}

    def _is_ready(self) -> bool:
        return is_listening(self.port)

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
        shutil.rmtree(self.directory, ignore_errors=True)

    def start(self) -> None:
        """Starts it, for the first time or again, on the same port; returns when it answers."""
        self.program.start()
        self.program.wait_until_ready(self._is_ready)
