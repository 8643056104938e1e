import os
import subprocess
import sys
from pathlib import Path

import pytest

from llmgateway.observability.exposition import RETIRED, Board, exposed, is_running, retire, wipe
from llmgateway.observability.metrics import FAMILIES, Sample

CALLS = Sample("requests", ("/v1/completions", "m", "200", "completed"), [3.0])
IN_FLIGHT = Sample("inflight_requests", (), [2.0])
BOUNDS = FAMILIES["overhead_seconds"].bounds
OVERHEAD = Sample("overhead_seconds", ("/v1/completions", "m"), [1.0, 2.0, *[0.0] * (len(BOUNDS) - 1), 190.0])


def page(*processes: list[Sample]) -> dict[str, float]:
    body, content_type = exposed(processes, "text/plain", alone=False)
    assert content_type.startswith("text/plain")
    lines = [line for line in body.decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def test_processes_are_added_up() -> None:
    found = page([CALLS, IN_FLIGHT], [CALLS, IN_FLIGHT])
    name = 'llmgateway_requests_total{model="m",outcome="completed",route="/v1/completions",status="200"}'
    assert found[name] == 6
    assert found["llmgateway_inflight_requests"] == 4


def test_gauges_fold_as_they_are_meant() -> None:
    up = [Sample("upstream_up", ("m", "a:1"), [one]) for one in (1.0, 0.0)]
    version = [Sample("config_version", (), [one]) for one in (3.0, 4.0)]
    found = page([up[0], version[0]], [up[1], version[1]])
    assert found['llmgateway_upstream_up{model="m",replica="a:1"}'] == 0
    assert found["llmgateway_config_version"] == 4


def test_buckets_are_cumulative_and_in_seconds() -> None:
    found = page([OVERHEAD], [OVERHEAD])
    labels = 'model="m",route="/v1/completions"'
    assert found[f'llmgateway_overhead_seconds_bucket{{le="5e-05",{labels}}}'] == 2
    assert found[f'llmgateway_overhead_seconds_bucket{{le="0.0001",{labels}}}'] == 6
    assert found[f'llmgateway_overhead_seconds_bucket{{le="+Inf",{labels}}}'] == 6
    assert found[f"llmgateway_overhead_seconds_count{{{labels}}}"] == 6
    assert found[f"llmgateway_overhead_seconds_sum{{{labels}}}"] == pytest.approx(380e-6)


def test_what_has_no_labels_is_there_from_the_start() -> None:
    found = page([])
    assert found["llmgateway_journal_failures_total"] == 0
    assert found["llmgateway_usage_spool_records"] == 0


def test_labels_are_escaped() -> None:
    (name,) = (name for name in page([Sample("tokens", ('a"b\\c', "input"), [1.0])]) if "tokens" in name)
    assert name == 'llmgateway_tokens_total{model="a\\"b\\\\c",type="input"}'


def test_one_process_tells_of_itself_and_openmetrics_is_spoken() -> None:
    body, content_type = exposed([[IN_FLIGHT]], "application/openmetrics-text", alone=True)
    assert content_type.startswith("application/openmetrics-text")
    assert b"process_resident_memory_bytes" in body
    assert body.endswith(b"# EOF\n")


def test_a_board_shows_what_others_wrote(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.publish([CALLS])
    assert list(board.others()) == []
    (tmp_path / f"{os.getppid()}.samples").write_bytes((tmp_path / f"{os.getpid()}.samples").read_bytes())
    assert list(board.others()) == [[CALLS]]


def dead_pid() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    return child.pid


def test_the_dead_keep_their_counts_but_have_no_gauges(tmp_path: Path) -> None:
    board, pid = Board(tmp_path), dead_pid()
    board.publish([CALLS, IN_FLIGHT])
    (tmp_path / f"{os.getpid()}.samples").rename(tmp_path / f"{pid}.samples")
    assert not is_running(pid)
    assert list(board.others()) == [[CALLS]]
    retire(tmp_path, pid)
    retire(tmp_path, pid)
    assert [path.suffix for path in tmp_path.iterdir()] == [RETIRED]
    assert list(board.others()) == [[CALLS]]


def test_a_file_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    board = Board(tmp_path)
    (tmp_path / "1.samples").write_bytes(b"[")
    assert list(board.others()) == []
    wipe(tmp_path)
    assert list(tmp_path.iterdir()) == []
