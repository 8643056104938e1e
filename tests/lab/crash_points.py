"""A process that dies at a chosen step: each thing that journal, shipper and recovery do to a disk or a store
is one, and each can be the last. Of an append also the middle.

`python -m tests.lab.crash_points <directory> <first> <stride>` tries every so many-th step from the first on,
one after the other, each on a journal and a store of its own: a life that dies there, one that dies while it
recovers what the first has left, and one that comes to its end and looks whether all is right. It prints a
line for each step that was tried, and ends when some lives in a row have come to their end before their step.
"""

import asyncio
import os
import random
import shutil
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from itertools import count
from pathlib import Path
from typing import Any

from typing_extensions import override

from llmgateway.domain.admission import Spent
from llmgateway.domain.call import Record, Tokens
from llmgateway.domain.ports import RecordQuery, SystemClock
from llmgateway.jobs.ship import Recovery, Shipper
from llmgateway.stores import journal as journals
from llmgateway.stores.journal import FileJournal
from llmgateway.stores.segment import Segment
from llmgateway.stores.sqlite import SqliteStore, open_sqlite
from tests.stores.samples import record

CALLS, OPEN, SHIP_EVERY = 14, 3, 5
SEGMENT = 6 * 1024  # bytes: about seven records
DIED = 137
ENDS = 3  # a thread takes part: one life has a step or two more than another
SECOND = 60  # steps into which the second death falls


class Steps:
    """Counts them, and dies at one. Whoever is another thread's is not counted: its turn comes by chance."""

    def __init__(self, last: int) -> None:
        self.last = last
        self.taken = 0

    def __call__(self) -> None:
        self.taken += 1
        if self.taken == self.last:
            os._exit(DIED)

    def around(self, work: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(work)
        def stepped(*args: Any) -> Any:
            self()
            done = work(*args)
            self()
            return done

        return stepped


def mortal(steps: Steps) -> None:
    """From here on the journal of this process dies at its step: the parts that touch the disk are replaced,
    which is why each life is a process of its own."""

    class MortalSegment(Segment):
        lay_out = steps.around(Segment.lay_out)
        move_to = steps.around(Segment.move_to)
        delete = steps.around(Segment.delete)

        @override
        def append(self, data: bytes) -> None:
            steps()
            assert self._memory is not None
            half = len(data) // 2
            self._memory[self.size : self.size + half] = data[:half]
            steps()
            super().append(data)
            steps()

    journal: Any = journals
    journal.Segment = MortalSegment
    journal.lock, journal.unlock = steps.around(journal.lock), steps.around(journal.unlock)


class Held:
    """What calls reserve, as files: as a limiter elsewhere it outlives the process, and a call is counted by
    one atomic move."""

    def __init__(self, root: Path, worker: str, steps: Steps) -> None:
        self.root = root
        self.worker = worker
        self._steps = steps
        (root / "held" / worker).mkdir(parents=True)
        (root / "counted").mkdir(exist_ok=True)

    def claim(self, id: str) -> None:
        self._steps()
        (self.root / "held" / self.worker / id).touch()

    def settle(self, id: str, tokens: int) -> None:
        self._count(self.worker, id, tokens)

    async def recover(self, worker: str, spent: Spent) -> None:
        ids = [path.name for path in (self.root / "held" / worker).glob("*")]
        for id, (tokens, _) in (await spent(ids)).items():
            self._count(worker, id, tokens)
        self._steps()

    def _count(self, worker: str, id: str, tokens: int) -> None:
        self._steps()
        (self.root / "held" / worker / id).rename(self.root / "counted" / f"{id}={tokens}")

    def counted(self) -> dict[str, int]:
        names = (path.name.partition("=") for path in (self.root / "counted").iterdir())
        return {id: int(tokens) for id, _, tokens in names}

    def left(self) -> list[str]:
        return [path.name for path in (self.root / "held").glob("*/*")]


class Life:
    """One process: takes over what is left, then takes calls. `said` is what it has let others know: R for
    reserved, so that an upstream may have been asked; S for settled."""

    def __init__(self, root: Path, number: int, steps: Steps) -> None:
        self.root = root
        self.worker = f"life-{number}"
        self.steps = steps
        self._dice = random.Random(number)
        self._said = root / "said"

    async def live(self) -> None:
        async with open_sqlite(self.root / "gateway.db", 5) as store:
            with FileJournal(self.root / "journal", worker=self.worker, segment_bytes=SEGMENT) as journal:
                held = Held(self.root, self.worker, self.steps)
                recovery = Recovery(journal, journal, SystemClock(), lines=store.lines, heirs=[held.recover])
                await recovery.look()
                shipper = Shipper(journal, self._shipped_to(store))
                await shipper.ship()
                await self._calls(journal, shipper, held)
                await shipper.ship()
            await self._check(store, held)

    def _shipped_to(self, store: SqliteStore) -> Callable[[Sequence[Record]], Any]:
        async def append(records: Sequence[Record]) -> Sequence[str]:
            self.steps()
            refused = await store.append(records)
            self.steps()
            return refused

        return append

    async def _calls(self, journal: FileJournal, shipper: Shipper[Any], held: Held) -> None:
        running: list[Record] = []
        for number in range(CALLS + OPEN):
            if number < CALLS:
                one = record(self._dice, outcome=None, tokens=Tokens(1))
                held.claim(one.id)
                journal.reserve(one)
                self._say("R", one)
                one.tokens = Tokens(1, number)
                if number % 3 == 0:
                    journal.progress([one])
                running.append(one)
            if number >= OPEN:
                self._settle(journal, running.pop(0), held)
            if number % SHIP_EVERY == 0:
                await shipper.ship()

    def _settle(self, journal: FileJournal, one: Record, held: Held) -> None:
        one.outcome, one.tokens = "completed", Tokens(2, self._dice.randrange(1000))
        journal.settle(one)
        self._say("S", one)
        held.settle(one.id, used(one.tokens))

    def _say(self, word: str, one: Record) -> None:
        with self._said.open("ab") as file:
            file.write(f"{word} {one.id} {used(one.tokens)}\n".encode())

    async def _check(self, store: SqliteStore, held: Held) -> None:
        """Nothing is lost or stands twice, nothing is reserved, and what is counted is what is stored."""
        lines = await store.records(RecordQuery(limit=1000))
        tokens = {line["id"]: line["tokens"]["prompt"] + line["tokens"]["completion"] for line in lines}
        assert len(tokens) == len(lines)
        said = [line.split() for line in self._said.read_text().splitlines()]
        reserved = {id for word, id, _ in said if word == "R"}
        settled = {id: int(used) for word, id, used in said if word == "S"}
        outcomes = {line["id"]: line["outcome"] for line in lines}
        assert reserved <= tokens.keys(), "lost"
        assert settled.items() <= tokens.items(), "not as it was settled"
        assert {outcomes[id] for id in settled} == {"completed"}
        assert set(outcomes.values()) <= {"completed", "recovered"}
        assert held.left() == [], "still reserved"
        counted = held.counted()
        assert tokens.items() <= counted.items(), "the sums are not the ledger's"
        assert not any(counted[id] for id in counted.keys() - tokens.keys())
        journals_left = [path.name for path in (self.root / "journal").glob("[!.]*")]  # a dot: never born
        assert journals_left == [], "not cleared away"


def used(tokens: Tokens) -> int:
    return tokens.prompt + tokens.completion


def live(root: Path, number: int, last: int) -> int:
    """The exit code of a life in a process of its own."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            steps = Steps(last)
            mortal(steps)
            asyncio.run(Life(root, number, steps).live())
            code = 0
        except BaseException:  # noqa: BLE001  # the process ends here, whatever happened
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stdout.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main(directory: str, first: int, stride: int) -> int:
    whole = 0  # lives in a row that came to their end
    for last in count(first, stride):
        root = Path(directory) / str(last)
        root.mkdir()
        died = [live(root, 1, last)]
        died.append(live(root, 2, 1 + last * 7 % SECOND))
        end = live(root, 3, 0)
        shutil.rmtree(root)
        print(last, *died, end, flush=True)
        if end or not set(died) <= {0, DIED}:
            return 1
        whole = whole + 1 if died[0] == 0 else 0
        if whole == ENDS:
            return 0
    raise AssertionError("not reached")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
