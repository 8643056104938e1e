from datetime import UTC, datetime, timedelta

import pytest

from llmgateway.cli.keys import moment_in, span_in
from llmgateway.domain.errors import InvalidRequest
from llmgateway.domain.keys import id_of
from tests.cli.conftest import Ask, Run

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)


def test_a_key_is_made_shown_once_and_listed(ask: Ask, run: Run) -> None:
    made = ask(
        "keys", "create", "--user", "alice", "--name", "laptop", "--models", "echo", "--expires", "90d"
    )
    assert id_of(made["key"].encode()) == made["id"]
    assert (made["user"], made["models"]) == ("alice", ["echo"])
    (listed,) = ask("keys", "list", "--user", "alice")["data"]
    assert listed["id"] == made["id"]
    assert "key" not in listed
    assert made["key"] not in run("keys", "list")[1]


def test_a_key_has_limits_of_its_own_from_the_start(ask: Ask, run: Run) -> None:
    of_alice = ("keys", "create", "--user", "alice", "--name", "batch")
    made = ask(*of_alice, "--limit", "requests_per_minute=5", "--limit", "tokens_per_day=900")
    found = ask("limits", "show", "key", made["id"])
    assert found["limits"] == {"requests_per_minute": 5, "tokens_per_day": 900}
    assert run(*of_alice, "--limit", "tokens_per_year=1")[0] == 2


def test_for_people_the_key_stands_alone_on_its_line(run: Run) -> None:
    code, said = run("keys", "create", "--user", "alice", "--name", "laptop")
    assert code == 0
    assert [line for line in said.splitlines() if line.startswith("lgw_")]
    assert "shown this once" in said


def test_a_key_is_rotated_and_revoked(ask: Ask, run: Run) -> None:
    made = ask("keys", "create", "--user", "alice", "--name", "laptop")
    rotated = ask("keys", "rotate", made["id"], "--overlap", "1h")
    assert rotated["id"] == made["id"]
    assert rotated["key"] != made["key"]
    assert rotated["previous_until"]
    assert ask("keys", "revoke", made["id"])["state"] == "revoked"
    assert run("keys", "rotate", made["id"])[0] == 1
    assert ask("keys", "list", "--state", "active")["data"] == []
    assert len(ask("keys", "list", "--state", "revoked")["data"]) == 1


def test_a_model_that_is_not_there_is_wrong_usage(run: Run) -> None:
    assert run("keys", "create", "--user", "a", "--name", "n", "--models", "none")[0] == 2


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("90d", NOW + timedelta(days=90)),
        ("12h", NOW + timedelta(hours=12)),
        ("2027-01-01", datetime(2026, 12, 31, 22, tzinfo=UTC)),
        ("2027-01-01T00:00:00Z", datetime(2027, 1, 1, tzinfo=UTC)),
    ],
)
def test_an_expiry_is_a_span_or_a_date(text: str, moment: datetime) -> None:
    assert moment_in(text, "Europe/Helsinki", NOW) == moment


@pytest.mark.parametrize("text", ["", "90", "d", "-1d", "1y", "1.5d"])
def test_what_is_no_span(text: str) -> None:
    with pytest.raises(InvalidRequest):
        span_in(text, "overlap")


def test_a_span_without_its_unit_is_told_of_spans() -> None:
    with pytest.raises(InvalidRequest, match="such as 90d or 12h, or a date, not '90'"):
        moment_in("90", "UTC", NOW)
