"""What is taken whole and what is cut up: every unit of time once, from the coarsest sums that say enough."""

import random
from datetime import UTC, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from llmgateway.stores.rollups import (
    DAY,
    HOUR,
    LAST,
    SLICE,
    Coverage,
    Level,
    Plan,
    Span,
    merged,
    midnights_of,
    plan,
    units,
)

MINUTE = 60_000
START = int(datetime(2026, 3, 20, tzinfo=UTC).timestamp()) * 1000
TWO = Coverage(levels=(Level(DAY), Level(HOUR)))
THREE = Coverage(levels=(Level(DAY), Level(HOUR), Level(SLICE)))


def at(days: int, hours: int = 0, minutes: int = 0) -> int:
    return START + days * DAY + hours * HOUR + minutes * MINUTE


def test_days_in_the_middle_hours_at_the_ends_records_at_the_edges() -> None:
    found = plan((at(0, 22, 30), at(3, 1, 15)), [], TWO)
    assert found.sums == {DAY: [(at(1), at(3))], HOUR: [(at(0, 23), at(1)), (at(3), at(3, 1))]}
    assert found.records == [(at(0, 22, 30), at(0, 23)), (at(3, 1), at(3, 1, 15))]


def test_whole_days_need_nothing_else() -> None:
    assert plan((at(0), at(9)), [], TWO) == Plan({DAY: [(at(0), at(9))]}, [])
    assert plan((at(0), at(0)), [], TWO) == Plan({}, [])


@pytest.mark.parametrize(("zone", "records"), [("Europe/Helsinki", 0), ("UTC", 0), ("Asia/Kathmandu", 4)])
def test_a_zone_on_full_hours_reads_no_records(zone: str, records: int) -> None:
    span = (at(0), at(4))
    found = plan(span, midnights_of(ZoneInfo(zone), span), TWO)
    assert found.records == [(at(day, 18), at(day, 19)) for day in range(records)]
    assert (DAY in found.sums) == (zone == "UTC")


def test_what_is_stale_is_read_from_the_records_and_nothing_else_is() -> None:
    stale = [(at(1, 5, 10), at(1, 5, 20))]
    found = plan((at(0), at(3)), [], Coverage(levels=THREE.levels, stale=stale))
    assert found.records == stale
    assert found.sums[DAY] == [(at(0), at(1)), (at(2), at(3))]
    assert found.sums[HOUR] == [(at(1), at(1, 5)), (at(1, 6), at(2))]
    assert found.sums[SLICE] == [(at(1, 5), at(1, 5, 10)), (at(1, 5, 20), at(1, 6))]


def test_where_fine_sums_are_gone_the_next_finer_ones_answer() -> None:
    levels = (Level(DAY), Level(HOUR), Level(SLICE, at(2)))
    found = plan((at(0, 0, 30), at(3, 0, 30)), [], Coverage(levels=levels))
    assert found.records == [(at(0, 0, 30), at(0, 1))]
    assert found.sums[SLICE] == [(at(3), at(3, 0, 30))]


def test_where_records_are_gone_units_belong_to_where_they_begin() -> None:
    gone = Coverage(levels=TWO.levels, records_since=at(9))
    found = plan((at(0, 0, 30), at(1, 0, 30)), [], gone)
    assert found == Plan({HOUR: [(at(0, 1), at(1, 1))]}, [])
    found = plan((at(1, 0, 30), at(2)), [], gone)
    assert found == Plan({HOUR: [(at(1, 1), at(2))]}, [])
    only_days = Coverage(levels=(Level(DAY), Level(HOUR, at(9))), records_since=at(9))
    assert plan((at(0, 5), at(3, 5)), [at(1, 2)], only_days) == Plan({DAY: [(at(1), at(4))]}, [])


@pytest.mark.parametrize("seed", range(30))
def test_every_moment_is_taken_exactly_once(seed: int) -> None:
    chance = random.Random(seed)
    span = (at(chance.randrange(3), 0, chance.randrange(3000)), at(4, 0, chance.randrange(9000)))
    zone = ZoneInfo(chance.choice(["Asia/Kathmandu", "Australia/Lord_Howe", "America/Santiago"]))
    stale = [
        (start := at(0, 0, 5 * chance.randrange(2000)), start + SLICE) for _ in range(chance.randrange(6))
    ]
    midnights = midnights_of(zone, span)
    levels = (Level(DAY), Level(HOUR, at(chance.randrange(3))), Level(SLICE, at(chance.randrange(6))))
    found = plan(span, midnights, Coverage(levels=levels, stale=merged(stale)))
    taken: list[Span] = [*found.records, *(one for spans in found.sums.values() for one in spans)]
    assert sum(end - start for start, end in taken) == span[1] - span[0]
    assert merged(taken) == [span]
    for size, spans in found.sums.items():
        for unit in (unit for start, end in spans for unit in range(start, end, size)):
            assert unit % size == 0
            assert not any(unit < midnight < unit + size for midnight in midnights)
            assert not any(start < unit + size and unit < end for start, end in stale)


def test_midnights_of_days_that_are_short_long_and_missing() -> None:
    span = (START, at(20))
    found = midnights_of(ZoneInfo("Europe/Helsinki"), span)
    assert {later - one for one, later in pairwise(found)} == {DAY, 23 * HOUR}
    apia, start = ZoneInfo("Pacific/Apia"), int(datetime(2011, 12, 28, tzinfo=UTC).timestamp()) * 1000
    turns = sorted(set(midnights_of(apia, (start, start + 5 * DAY))))
    dates = [datetime.fromtimestamp(turn // 1000, apia).date().day for turn in turns]
    assert dates == [28, 29, 31, 1, 2]
    assert midnights_of(ZoneInfo("UTC"), (at(1), at(1))) == []


def test_the_last_moment_is_one_that_a_datetime_can_be() -> None:
    assert datetime.fromtimestamp(LAST // 1000, UTC).year == 9999
    assert units([(at(0), at(0, 1))], HOUR) == [at(0)]
