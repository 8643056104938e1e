"""The audit log: who changed what, as a chain of lines that each hold the hash of the one before.

A line is written before its change takes effect, so no change is without one, and after everything that could
be a reason to refuse it. Where the change then fails, a second line with the same target and request id says
so. Whoever alters, inserts or drops a line breaks the
chain; that lines were cut off at its end shows in the process's log, which gets every line too.
"""

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from llmgateway.control.moments import now_of, written
from llmgateway.control.plain import plain
from llmgateway.domain.errors import Conflict, GatewayError, StoreUnavailable
from llmgateway.domain.ports import Clock, Document, Documents, Page

log = logging.getLogger(__name__)

TRIES = 200  # each lost one means that another process has written
PAGE = 1000
TRIM = "audit.trim"
FIRST_PREVIOUS = "0" * 64
LOGGED = ("id", "who", "action", "target", "result", "request_id", "source", "hash")
FIELDS = ("id", "at", "who", "action", "target", "result", "request_id", "source", "details", "previous")


class Actor(Struct, frozen=True):
    """Who acts, and where from: a surface and an address, such as `admin 10.0.0.1`, or `cli`."""

    who: str
    source: str
    request_id: str | None = None


class AuditLine(Struct, frozen=True, kw_only=True):
    """`result` is `ok`, or the code of the error that the change was refused with or failed with. `details`
    holds what was asked for, never a secret."""

    id: str
    at: datetime
    who: str
    action: str
    target: str
    result: str
    request_id: str | None
    source: str
    details: dict[str, Any]
    previous: str
    hash: str


class Verdict(Struct, frozen=True):
    """What a walk along the chain found: `bad` is the id of the first line that does not fit, None in a whole
    chain. `head` is the hash of the last good line."""

    lines: int
    head: str
    bad: str | None = None
    reason: str | None = None


class Entry:
    """A change that is under way."""

    def __init__(self, audit: "Audit", actor: Actor, action: str, target: str) -> None:
        self._audit = audit
        self._actor = actor
        self._action = action
        self.target = target
        self._said: str | None = None

    async def accept(self, details: Mapping[str, object], result: str = "ok") -> None:
        """The change is about to be made. A change that has to be tried again is still one line. `result` is
        another where what was asked for will be refused, and something changes all the same."""
        if self._said is None:
            await self._write(result, details)
            self._said = result

    async def fail(self, code: str) -> None:
        """Never hides the error that it tells of."""
        if self._said == code:
            return
        try:
            await self._write(code, {})
        except GatewayError as error:
            missing = {"action": self._action, "target": self.target, "result": code, "error": error.code}
            log.warning("no audit line for a change that failed", extra={"fields": missing})

    async def _write(self, result: str, details: Mapping[str, object]) -> None:
        await self._audit.write(self._actor, self._action, self.target, result=result, details=details)


class Audit:
    """Several processes may write to one chain: the one that comes second to a place in it takes the next."""

    def __init__(self, store: Documents, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def change(self, actor: Actor, action: str, target: str) -> AsyncIterator[Entry]:
        entry = Entry(self, actor, action, target)
        try:
            yield entry
        except GatewayError as error:
            await entry.fail(error.code)
            raise
        except Exception:
            await entry.fail(GatewayError.code)
            raise

    async def write(
        self, actor: Actor, action: str, target: str, *, result: str, details: Mapping[str, object]
    ) -> None:
        line: Document = {
            "at": now_of(self._clock), "who": actor.who, "action": action, "target": target, "result": result,
            "request_id": actor.request_id, "source": actor.source,
            "details": msgspec.to_builtins(details, enc_hook=plain),
        }  # fmt: skip
        async with self._turn:
            line = await self._append(line)
        log.info("audit", extra={"fields": {name: line[name] for name in LOGGED}})

    async def page(self, where: Mapping[str, str | None], *, limit: int, after: str | None = None) -> Page:
        """Newest first."""
        return await self._store.find("audit", where, limit=limit, after=after, newest_first=True)

    async def verify(self) -> Verdict:
        """Walks the whole chain. Where it does not begin with the first line, a later line has to say that
        those before were thrown away, and with which hash they ended."""
        count, first, head, gone, after = 0, 1, FIRST_PREVIOUS, None, None
        while True:
            page = await self._store.find("audit", {}, limit=PAGE, after=after)
            for line in page.data:
                if not count and line["id"].isdecimal() and int(line["id"]) > 1:
                    first, head = int(line["id"]), str(line.get("previous"))
                    gone = {"up_to": _name(first - 1), "hash": head}
                reason = _flaw(line, _name(first + count), head)
                if reason is not None:
                    return Verdict(count, head, line["id"], reason)
                if gone is not None and line["action"] == TRIM and _tells(line, gone):
                    gone = None
                count, head = count + 1, line["hash"]
            if page.next is None:
                return _verdict(count, head, gone)
            after = page.next

    async def trim(self, actor: Actor, before: datetime) -> int:
        """Throws lines away that are older, after a line that says so; never the last one. Returns how
        many."""
        old: list[Document] = []
        after: str | None = None
        while True:
            page = await self._store.find("audit", {}, limit=PAGE, after=after)
            found = [line for line in page.data if line["at"] < before]
            old += found
            if page.next is None or len(found) < len(page.data):
                break
            after = page.next
        if old and len(found) == len(page.data):
            old.pop()
        if old:
            told = {"up_to": old[-1]["id"], "hash": old[-1]["hash"]}
            await self.write(actor, TRIM, told["up_to"], result="ok", details=told)
        for line in old:
            await self._store.delete("audit", line["id"])
        return len(old)

    async def _append(self, line: Document) -> Document:
        for _ in range(TRIES):
            page = await self._store.find("audit", {}, limit=1, newest_first=True)
            number, previous = _next_place(page.data[0]) if page.data else (1, FIRST_PREVIOUS)
            linked = {**line, "id": _name(number), "revision": 0, "previous": previous}
            linked["hash"] = hash_of(linked)
            try:
                await self._store.insert("audit", linked)
            except Conflict:
                continue
            return linked
        raise StoreUnavailable("The audit log is too busy; please try again.", retry_after=1)


def hash_of(line: Mapping[str, Any]) -> str:
    """SHA-256 of the line's canonical JSON: every field but the hash, names in order, no spaces, UTF-8."""
    fields = {name: line.get(name) for name in FIELDS} | {"at": written(line["at"])}
    return hashlib.sha256(msgspec.json.encode(fields, enc_hook=plain, order="sorted")).hexdigest()


def _tells(line: Mapping[str, Any], gone: Mapping[str, str]) -> bool:
    """A line may tell of more than was gone in the end, and of a part that went before."""
    details = line["details"]
    return bool(details.get("up_to") == gone["up_to"] and details.get("hash") == gone["hash"])


def _verdict(count: int, head: str, gone: Mapping[str, str] | None) -> Verdict:
    if gone is None:
        return Verdict(count, head)
    first = _name(int(gone["up_to"]) + 1)
    return Verdict(count, head, first, "no line says that those before it were thrown away")


def _name(number: int) -> str:
    return f"{number:016}"


def _next_place(last: Mapping[str, Any]) -> tuple[int, str]:
    if not last["id"].isdecimal() or "hash" not in last:
        raise StoreUnavailable("The audit log is damaged, so nothing can change; `audit verify` says where.")
    return int(last["id"]) + 1, last["hash"]


def _flaw(line: Mapping[str, Any], expected_id: str, previous: str) -> str | None:
    if line["id"] != expected_id:
        return f"the line {expected_id} before it is missing"
    try:
        found = hash_of(line)
    except (KeyError, TypeError, AttributeError, ValueError):
        return "it is not a line of this log"
    if line.get("previous") != previous:
        return "it does not follow the line before it"
    return None if line.get("hash") == found else "it was altered"
