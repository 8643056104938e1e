"""Work that breaks off: told once for as long as it is the same, and begun anew ever later."""

import logging

import pytest

from llmgateway.domain.falls import FIRST_PAUSE, LONGEST_PAUSE, SILENCE, Falls


def test_the_same_failure_is_told_once_a_minute_and_another_at_once(caplog: pytest.LogCaptureFixture) -> None:
    falls = Falls("the work", logging.getLogger("work"))
    for now in (0.0, 1.0, SILENCE - 1):
        falls.note(OSError("no"), now)
    assert len(caplog.records) == 1
    falls.note(OSError("never"), SILENCE - 1)
    assert len(caplog.records) == 2
    falls.note(OSError("never"), 2 * SILENCE)
    assert len(caplog.records) == 3
    assert falls.count == 5
    assert caplog.records[0].getMessage() == "the work has failed and begins anew"


def test_pauses_grow_until_it_has_held_for_a_while() -> None:
    falls = Falls("the work", logging.getLogger("work"))
    pauses = [falls.note(OSError(), 1.0) for _ in range(10)]
    assert (pauses[:3], pauses[-1]) == ([FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE], LONGEST_PAUSE)
    assert falls.note(OSError(), 1.0 + SILENCE) == FIRST_PAUSE
