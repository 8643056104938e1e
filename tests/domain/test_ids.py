"""Ids are UUIDv7: well formed, in the order of their times, and never the same."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from llmgateway.domain.ids import Ids

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def test_ids_are_uuids_of_version_seven() -> None:
    ids = Ids()
    for _ in range(1000):
        parsed = UUID(ids(NOON))
        assert parsed.version == 7
        assert parsed.variant == "specified in RFC 4122"


def test_ids_hold_their_time_and_sort_by_it() -> None:
    ids = Ids()
    made = [ids(NOON + timedelta(milliseconds=n)) for n in range(100)]
    assert made == sorted(made)
    assert UUID(made[7]).int >> 80 == int((NOON + timedelta(milliseconds=7)).timestamp() * 1000)


def test_ids_of_one_millisecond_sort_too() -> None:
    ids = Ids()
    made = [ids(NOON) for _ in range(1000)]
    assert made == sorted(set(made))


def test_two_sources_do_not_agree() -> None:
    one, other = Ids(), Ids()
    assert len({ids(NOON) for _ in range(10_000) for ids in (one, other)}) == 20_000
