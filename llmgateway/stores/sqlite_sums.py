"""The sums beside the embedded ledger: how they are asked, kept, checked and thrown away, in SQL.

A record is in the sums when its number is not above `rolled`; `rollups.py` says why.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from sqlite3 import Connection
from typing import Any, Final

import msgspec

from llmgateway.domain.ports import Dimension, UsageQuery
from llmgateway.stores.rollups import (
    DAY,
    FIRST,
    HOUR,
    LAST,
    QUARTER,
    Coverage,
    Level,
    Plan,
    Span,
    midnights_of,
    plan,
)
from llmgateway.stores.usage import COLUMNS, Totals, checked, folded, milliseconds, zone_of

AT_A_TIME = 20_000  # records that one step rolls up: some twenty milliseconds
DELETED_AT_ONCE = 500
NONE = "char(31)"  # the project of records without one: a key has no NULL, and no name a control character
ROLLED, RECORDS_SINCE, HOURLY_SINCE = "rolled", "records_since", "hourly_since"

_AMOUNTS: Final = ("requests", "prompt", "completion", "cached", "reasoning", "cost")
_ADDED: Final = ", ".join(f"sum({name})" for name in _AMOUNTS)
_GROUP: Final = f"user, key_id, coalesce(project, {NONE}), model"
_OF_RECORDS: Final = f"SELECT ?1, at / ?1 * ?1, {_GROUP}, {_ADDED} FROM records"  # noqa: S608 - own words
_OF_HOURS: Final = f"SELECT ?1, unit / ?1 * ?1, {_GROUP}, {_ADDED} FROM sums WHERE level = {HOUR}"  # noqa: S608
_BY: Final = "GROUP BY 2, 3, 4, 5, 6"
_INTO: Final = "INSERT INTO sums "
_MORE: Final = ", ".join(f"{name} = {name} + excluded.{name}" for name in _AMOUNTS)
_ADD: Final = f"{_INTO}VALUES ({', '.join('?' * 12)}) ON CONFLICT DO UPDATE SET {_MORE}"
# One text to group by costs a third less than five columns; the others are those of any record of its group.
_ONE: Final = " || char(30) || ".join(("(at / ?1)", "user", "key_id", f"coalesce(project, {NONE})", "model"))
_STEP: Final = f"{_OF_RECORDS} WHERE seq > ?2 AND seq <= ?3 GROUP BY {_ONE}"
_ALL: Final = f"level, unit, user, key_id, project, model, {', '.join(_AMOUNTS)}"
_OF_LEVEL: Final = f"SELECT {_ALL} FROM sums WHERE level = ?1 AND unit >= ?2 AND unit < ?3"  # noqa: S608
_OTHERS: Final = "key_id IN (SELECT value FROM json_each(?)) AND user <> ?"
_SUMS_OF_OTHERS: Final = f"FROM sums WHERE level IN ({HOUR}, {DAY}) AND unit >= ? AND unit < ? AND {_OTHERS}"
_SAME: Final = "level, unit, key_id, project, model"
_TAKEN_OVER: Final = (
    f"SELECT level, unit, ?, key_id, project, model, {_ADDED} {_SUMS_OF_OTHERS} GROUP BY {_SAME}"
)


class Tally:
    """The sums of what was appended since `start`, up to number `end`, made of the rows while they are at
    hand: reading them again would cost three times as much. `end` is None once a number was missed, for
    example when another process has appended; then the rows are read."""

    def __init__(self, start: int | None = None) -> None:
        self.start = self.end = start
        self._sums: dict[tuple[Any, ...], list[int]] = {}

    def add(self, rows: Iterable[Sequence[Any]], before: int, after: int) -> None:
        """All of `rows`, and no others, have the numbers after `before` up to `after`."""
        if self.end != before:
            self.end = None
            return
        sums = self._sums
        for _, at, user, key_id, project, model, prompt, completion, cached, reasoning, cost, _ in rows:
            key = (at // HOUR, user, key_id, project, model)
            known = sums.get(key)
            if known is None:
                sums[key] = [1, prompt, completion, cached, reasoning, cost]
                continue
            known[0] += 1
            known[1] += prompt
            known[2] += completion
            known[3] += cached
            known[4] += reasoning
            known[5] += cost
        self.end = after

    def hours(self) -> list[tuple[Any, ...]]:
        """As rows of `sums`."""
        return [
            (HOUR, hour * HOUR, user, key_id, "\x1f" if project is None else project, model, *amounts)
            for (hour, user, key_id, project, model), amounts in self._sums.items()
        ]


def newest(connection: Connection) -> int:
    found = connection.execute("SELECT max(seq) FROM records").fetchone()[0]
    return int(found or 0)


def mark(connection: Connection, name: str, default: int = 0) -> int:
    found = connection.execute("SELECT value FROM marks WHERE name = ?", (name,)).fetchone()
    return int(found[0]) if found else default


def set_mark(connection: Connection, name: str, value: int) -> None:
    connection.execute("INSERT OR REPLACE INTO marks VALUES (?, ?)", (name, value))


# --- questions ---


def answer(connection: Connection, query: UsageQuery) -> Totals:
    """One view of the file for all parts of it, whatever another process writes meanwhile."""
    with _snapshot(connection):
        rolled = mark(connection, ROLLED)
        rows = [*_tail(connection, query, rolled)]
        for sql, values in _parts(query, _planned(connection, query), rolled):
            rows += connection.execute(sql, values)
    return folded(rows, query.by, zone_of(query.time_zone))


def _planned(connection: Connection, query: UsageQuery) -> Plan:
    """For what is in the sums, which is within the days that they know."""
    sql = "SELECT min(unit), max(unit) FROM sums WHERE level = ?"
    first, last = connection.execute(sql, (DAY,)).fetchone()
    if first is None:
        return Plan({}, [])
    span = _clipped(query, (first, last + DAY))
    midnights = midnights_of(zone_of(query.time_zone), span) if "day" in query.by else []
    hours = Level(HOUR, mark(connection, HOURLY_SINCE, FIRST))
    since = mark(connection, RECORDS_SINCE, FIRST)
    return plan(span, midnights, Coverage(levels=(Level(DAY), hours), records_since=since))


def _clipped(query: UsageQuery, span: Span) -> Span:
    start = span[0] if query.start is None else max(span[0], milliseconds(query.start))
    end = span[1] if query.end is None else min(span[1], milliseconds(query.end))
    return start, end


def _parts(query: UsageQuery, planned: Plan, rolled: int) -> Iterator[tuple[str, list[object]]]:
    filters, wanted = _filters(query.where)
    spans = "json_each(?) AS span CROSS JOIN"
    within = "{0} >= json_extract(span.value, '$[0]') AND {0} < json_extract(span.value, '$[1]')"
    for level, found in planned.sums.items():
        chosen = _chosen(query.by, unit="unit", project=f"nullif(project, {NONE})")
        source = f"FROM {spans} sums WHERE level = {level} AND {within.format('unit')}{filters}"
        yield f"{chosen} {source}{_grouped(query.by)}", [_json(found), *wanted]
    if planned.records:
        chosen = _chosen(query.by, unit=f"at / {QUARTER} * {QUARTER}", project="project")
        source = f"FROM {spans} records INDEXED BY records_by_time WHERE {within.format('at')}"
        sql = f"{chosen} {source} AND seq <= ?{filters}{_grouped(query.by)}"
        yield sql, [_json(planned.records), rolled, *wanted]


def _tail(connection: Connection, query: UsageQuery, rolled: int) -> Iterable[Any]:
    """What is not in the sums yet, wherever in time it belongs."""
    filters, wanted = _filters(query.where)
    start, end = _clipped(query, (FIRST, LAST))
    chosen = _chosen(query.by, unit=f"at / {QUARTER} * {QUARTER}", project="project")
    within = "seq > ? AND +at >= ? AND +at < ?"  # + keeps it from the index by time
    sql = f"{chosen} FROM records WHERE {within}{filters}{_grouped(query.by)}"
    return connection.execute(sql, [rolled, start, end, *wanted])


def _chosen(by: Sequence[Dimension], *, unit: str, project: str) -> str:
    columns = {**COLUMNS, "day": unit, "project": project}
    return f"SELECT {', '.join([*(columns[name] for name in by), _ADDED])}"


def _grouped(by: Sequence[Dimension]) -> str:
    return f" GROUP BY {', '.join(str(number + 1) for number in range(len(by)))}" if by else ""


def _filters(where: Mapping[str, str]) -> tuple[str, list[str]]:
    return "".join(f" AND {name} = ?" for name in checked(where)), list(where.values())


def _json(spans: Sequence[Span]) -> str:
    return msgspec.json.encode(spans).decode()


@contextmanager
def _snapshot(connection: Connection) -> Iterator[None]:
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("COMMIT")


# --- keeping them ---


def roll_up(connection: Connection, tally: Tally) -> int:
    """A step; returns up to which number the sums go now."""
    rolled, last = mark(connection, ROLLED), newest(connection)
    if last <= rolled:
        return rolled
    if tally.start == rolled and tally.end == last:
        rows = tally.hours()
    else:
        last = min(last, rolled + AT_A_TIME)
        rows = connection.execute(_STEP, (HOUR, rolled, last)).fetchall()  # few, however many records
    connection.executemany(_ADD, rows)
    connection.executemany(_ADD, [(DAY, unit // DAY * DAY, *row) for _, unit, *row in rows])
    set_mark(connection, ROLLED, last)
    return last


def bounds(connection: Connection) -> Span | None:
    """From the first day to the end of the last, of those whose records and hours are all there."""
    sql = """SELECT min(first), max(last) FROM (
      SELECT min(at) AS first, max(at) AS last FROM records
      UNION ALL SELECT min(unit), max(unit) FROM sums WHERE level = ?)"""
    first, last = connection.execute(sql, (DAY,)).fetchone()
    if first is None:
        return None
    gone = (mark(connection, name, FIRST) for name in (RECORDS_SINCE, HOURLY_SINCE))
    return max(first, *gone) // DAY * DAY, last // DAY * DAY + DAY


def mend_hour(connection: Connection, hour: int) -> None:
    connection.execute("DELETE FROM sums WHERE level = ? AND unit = ?", (HOUR, hour))
    sql = f"{_INTO}{_OF_RECORDS} WHERE at >= ?2 AND at < ?3 AND seq <= ?4 {_BY}"
    connection.execute(sql, (HOUR, hour, hour + HOUR, mark(connection, ROLLED)))


def mend_day(connection: Connection, day: int) -> None:
    connection.execute("DELETE FROM sums WHERE level = ? AND unit = ?", (DAY, day))
    connection.execute(f"{_INTO}{_OF_HOURS} AND unit >= ?2 AND unit < ?3 {_BY}", (DAY, day, day + DAY))


def differing_hours(connection: Connection, start: int, end: int) -> list[int]:
    """Hours of [start, end) whose sums are not their records'; of a day that is not the sum of its hours the
    first."""
    rolled = mark(connection, ROLLED)
    records = f"SELECT * FROM ({_OF_RECORDS} WHERE at >= ?2 AND at < ?3 AND seq <= ?4 {_BY})"  # noqa: S608
    found = _difference(connection, (records, _OF_LEVEL), (HOUR, start, end, rolled))
    days = f"SELECT * FROM ({_OF_HOURS} AND unit >= ?2 AND unit < ?3 {_BY})"  # noqa: S608
    found |= _difference(connection, (days, _OF_LEVEL), (DAY, start, end))
    return sorted(found)


def _difference(connection: Connection, sides: Sequence[str], values: Sequence[int]) -> set[int]:
    found: set[int] = set()
    for one, other in (sides, sides[::-1]):
        found |= {row[1] for row in connection.execute(f"{one} EXCEPT {other}", values)}
    return found


# --- another user's ---


def days_of_others(connection: Connection, keys: str, user: str) -> list[int]:
    """Days on which these keys, as JSON, were somebody else's."""
    sql = f"SELECT DISTINCT unit FROM sums WHERE level = ? AND {_OTHERS} ORDER BY unit"  # noqa: S608
    return [day for (day,) in connection.execute(sql, (DAY, keys, user))]


def reassign_day(connection: Connection, day: int, keys: str, user: str) -> int:
    """Records and sums in one step. What other processes have in hand to roll up names the user of before:
    so it is rolled up here, and they find that it was."""
    while mark(connection, ROLLED) < newest(connection):
        roll_up(connection, Tally())
    found = f"SELECT seq FROM records INDEXED BY records_by_time WHERE at >= ? AND at < ? AND {_OTHERS}"  # noqa: S608
    sql = f"UPDATE records SET user = ?, doc = json_set(doc, '$.user', ?) WHERE seq IN ({found})"  # noqa: S608
    connection.execute(sql, (user, user, day, day + DAY, keys, user))
    span = (day, day + DAY, keys, user)
    connection.execute(f"{_INTO}{_TAKEN_OVER} ON CONFLICT DO UPDATE SET {_MORE}", (user, *span))
    connection.execute(f"DELETE {_SUMS_OF_OTHERS}", span)
    return 1


# --- throwing away ---


def begin_drop(connection: Connection, name: str, before: int) -> None:
    """Questions stop to count on what goes before it goes."""
    set_mark(connection, name, max(before, mark(connection, name, FIRST)))


def drop_records(connection: Connection, before: int) -> int:
    chosen = "SELECT seq FROM records INDEXED BY records_by_time WHERE at < ? AND seq <= ? LIMIT ?"
    sql = f"DELETE FROM records WHERE seq IN ({chosen})"  # noqa: S608 - own words
    values = (before, mark(connection, ROLLED), DELETED_AT_ONCE)
    return connection.execute(sql, values).rowcount


def drop_sums(connection: Connection, level: int, before: int) -> int:
    """Of one day, the first that there is."""
    sql = """DELETE FROM sums WHERE level = ?1 AND unit < ?2
      AND unit < (SELECT min(unit) / ?3 * ?3 + ?3 FROM sums WHERE level = ?1)"""
    return connection.execute(sql, (level, before, DAY)).rowcount
