"""A worker to be killed: it opens, advances, closes and ships records as fast as it can, and says so.

Each line on its standard output was true when it was written: `R <id>` reserved, `S <id>` settled, `H <id>`
in the store. `python -m tests.stores.scribbling <root> <worker> <seed> <segment bytes>`; or, with `adopt` for
the seed, it takes over what dead workers left and says `O <id>` for each open record.
"""

import asyncio
import random
import sys
from pathlib import Path

from llmgateway.domain.call import Record
from llmgateway.stores.journal import FileJournal
from tests.stores.samples import record

MOST_OPEN = 20


def say(word: str, *records: Record) -> None:
    sys.stdout.write("".join(f"{word} {made.id}\n" for made in records))
    sys.stdout.flush()


def scribble(journal: FileJournal, chance: random.Random) -> None:
    opened: list[Record] = []
    while True:
        what = chance.random()
        if not opened or (what < 0.4 and len(opened) < MOST_OPEN):
            made = record(chance, outcome=None)
            journal.reserve(made)
            opened.append(made)
            say("R", made)
        elif what < 0.6:
            journal.progress([chance.choice(opened)])
        elif what < 0.95:
            made = opened.pop(chance.randrange(len(opened)))
            made.outcome = "completed"
            journal.settle(made)
            say("S", made)
        else:
            batch = journal.batch(chance.randrange(1, 50))
            say("H", *batch.records)
            journal.shipped(batch)


def main(root: str, worker: str, seed: str, segment_bytes: str) -> None:
    with FileJournal(Path(root), worker=worker, segment_bytes=int(segment_bytes)) as journal:
        say_ready()
        if seed == "adopt":
            sys.stdin.readline()
            estate = asyncio.run(journal.take_over())
            say("O", *estate.orphans)
            for dead in estate.workers:
                journal.given_back(dead)
            say_ready()
            sys.stdin.readline()
        else:
            scribble(journal, random.Random(int(seed)))


def say_ready() -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
