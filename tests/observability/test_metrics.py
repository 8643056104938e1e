import random
from typing import Any

from llmgateway.domain.call import Attempt, Record, Tokens
from llmgateway.observability.metrics import FAMILIES, CallMetrics, Sample
from tests.stores.samples import record

IDS = {"m": "m", "alias": "m"}
CHAT = "/v1/chat/completions"


def made(**changes: Any) -> Record:
    usual = {
        "endpoint": CHAT,
        "model": "m",
        "outcome": "completed",
        "status": 200,
        "stream": True,
        "duration_ms": 1100,
        "ttft_ms": 100,
        "overhead_us": 60,
        "tokens": Tokens(10, 11, 4, 2),
        "attempts": [],
    }
    return record(random.Random(1), **{**usual, **changes})


def counted(*records: Record) -> dict[str, list[Sample]]:
    metrics = CallMetrics(IDS.get)
    for one in records:
        metrics(one)
    found: dict[str, list[Sample]] = {}
    for sample in metrics.samples():
        found.setdefault(sample.family, []).append(sample)
    return found


def observed(sample: Sample, family: str) -> tuple[float, float]:
    """The bound of the one bucket that holds something, and the sum."""
    *counts, total = sample.values
    bounds = [*FAMILIES[family].bounds, float("inf")]
    (place,) = (place for place, count in enumerate(counts) if count)
    return bounds[place], total


def test_calls_are_counted_by_how_they_ended() -> None:
    found = counted(made(), made(), made(outcome="timeout", status=504), made(endpoint="/v1/embeddings"))
    assert {sample.labels: sample.values for sample in found["requests"]} == {
        (CHAT, "m", "200", "completed"): [2],
        (CHAT, "m", "504", "timeout"): [1],
        ("/v1/embeddings", "m", "200", "completed"): [1],
    }


def test_r_load_16_an_alias_is_its_model_and_a_stranger_is_other() -> None:
    found = counted(made(), made(model="alias"), made(model="gone"), made(model="gone too"))
    assert {sample.labels[1]: sample.values for sample in found["requests"]} == {"m": [2], "other": [2]}


def test_tokens_are_added_up_by_kind() -> None:
    found = counted(made(), made())
    assert {sample.labels: sample.values for sample in found["tokens"]} == {
        ("m", "input"): [20],
        ("m", "output"): [22],
        ("m", "cached"): [8],
        ("m", "reasoning"): [4],
    }


def test_times_fall_into_buckets() -> None:
    found = counted(made())
    for family, expected in {
        "request_duration_seconds": (2500, 1100),
        "time_to_first_token_seconds": (100, 100),
        "inter_token_seconds": (100_000, 100_000),
        "overhead_seconds": (100, 60),
    }.items():
        (sample,) = found[family]
        assert observed(sample, family) == expected, family


def test_what_took_longest_is_beyond_all_bounds() -> None:
    (sample,) = counted(made(duration_ms=10**9))["request_duration_seconds"]
    assert observed(sample, "request_duration_seconds") == (float("inf"), 10**9)


def test_a_plain_answer_has_no_times_of_streams() -> None:
    found = counted(made(stream=False, ttft_ms=None))
    assert "stream_endings" not in found
    assert "time_to_first_token_seconds" not in found


def test_streams_are_counted_by_their_ending() -> None:
    found = counted(made(), made(outcome="client_gone"), made(stream=False))
    assert {sample.labels[0]: sample.values for sample in found["stream_endings"]} == {
        "completed": [1],
        "client_gone": [1],
    }


def test_a_try_that_led_to_another_is_a_retry() -> None:
    failed, good = Attempt("a:1", 503, "status_503", 5), Attempt("b:1", 200, "ok", 9)
    found = counted(made(attempts=[failed, good]), made(attempts=[good]), made(attempts=[failed]))
    assert [(sample.labels, sample.values) for sample in found["upstream_retries"]] == [
        (("status_503",), [1])
    ]


def test_a_recovered_record_says_nothing_of_times() -> None:
    found = counted(made(outcome="recovered", stream=False))
    assert "request_duration_seconds" not in found
    assert len(found["requests"]) == 1
