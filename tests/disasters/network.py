"""Nodes as network namespaces, with a cable each to a switch; the stores stand at the switch. All of it lives
in the namespace of whoever starts it, so nothing outside changes, and it is gone with its processes."""

import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from typing_extensions import override

from tests.lab.gateway import Environment, Gateway
from tests.lab.processes import Program, is_listening
from tests.lab.servers import Mongod, Valkey
from tests.lab.waiting import wait_until

HUB = "10.99.0.1"


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


def switch() -> None:
    ip("link", "set", "lo", "up")
    ip("link", "add", "hub", "type", "bridge")
    ip("addr", "add", f"{HUB}/24", "dev", "hub")
    ip("link", "set", "hub", "up")


class Node:
    """A machine of its own, as far as the network goes."""

    def __init__(self, number: int, directory: Path) -> None:
        self.number = number
        self.address = f"10.99.0.{10 + number}"
        self._holder = Program(["unshare", "--net", "sleep", "infinity"], directory / f"node-{number}.log")

    def __enter__(self) -> Self:
        self._holder.start()
        pid, here, there = self._holder.pid, f"cable{self.number}", f"far{self.number}"
        own = Path("/proc/self/ns/net").readlink()
        wait_until(lambda: Path(f"/proc/{pid}/ns/net").readlink() != own, "the node has a network")
        ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", str(pid))
        ip("link", "set", here, "master", "hub", "up")
        self._inside("ip", "link", "set", "lo", "up")
        self._inside("ip", "addr", "add", f"{self.address}/24", "dev", there)
        self._inside("ip", "link", "set", there, "up")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._holder.kill()

    def cut(self) -> None:
        """Pulls the cable."""
        ip("link", "set", f"cable{self.number}", "down")

    def mend(self) -> None:
        ip("link", "set", f"cable{self.number}", "up")

    @property
    def enter(self) -> list[str]:
        return ["nsenter", f"--net=/proc/{self._holder.pid}/ns/net"]

    def _inside(self, *words: str) -> None:
        subprocess.run([*self.enter, *words], check=True, capture_output=True, text=True)


class Placed(Gateway):
    """A gateway on a node."""

    def __init__(self, argv: Sequence[str], environment: Environment, config: str | None = None) -> None:
        super().__init__(argv, {**environment, "LLMGATEWAY_HOST": "0.0.0.0"}, config)

    def on(self, node: Node) -> Self:
        self.address = node.address
        self.program.argv[:0] = node.enter
        return self

    @property
    @override
    def url(self) -> str:
        return f"http://{getattr(self, 'address', '127.0.0.1')}:{self.port}"


class HubValkey(Valkey):
    @override
    def _arguments(self) -> Sequence[str | Path]:
        words = [str(word) for word in super()._arguments()]
        at = words.index("127.0.0.1") + 1
        return [*words[:at], HUB, *words[at:], "--protected-mode", "no"]

    @override
    def url(self, database: int = 0) -> str:
        return f"redis://{HUB}:{self.port}/{database}"


class Member(Mongod):
    """One of a replica set; `Trio` founds it."""

    @override
    def _arguments(self) -> Sequence[str | Path]:
        return [f"127.0.0.1,{HUB}" if word == "127.0.0.1" else word for word in super()._arguments()]

    @override
    def _is_ready(self) -> bool:
        return is_listening(self.port)
