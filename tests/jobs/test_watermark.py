"""Near the limit of memory nothing new is taken."""

import os
import resource
from pathlib import Path

import pytest

from llmgateway.jobs.watermark import Use, Watermark, uses


def test_r_load_06_it_rises_late_and_falls_later() -> None:
    shares = [0.5, 0.94, 0.95, 0.91, 0.899, 0.94]
    watermark = Watermark(lambda: [Use(1, 100), Use(int(shares.pop(0) * 1000), 1000)])
    seen = []
    while shares:
        watermark.look()
        seen.append(watermark.is_high)
    assert seen == [False, False, True, True, False, False]


def test_each_turn_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    used = [999, 999, 999, 100, 100]
    watermark = Watermark(lambda: [Use(used.pop(0) << 20, 1000 << 20)])
    while used:
        watermark.look()
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]
    assert caplog.records[-1].message == "there is room again: memory"


def test_without_any_limit_there_is_none() -> None:
    watermark = Watermark(list)
    watermark.look()
    assert not watermark.is_high


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"memory.max": "1000\n", "memory.current": "900\n",
          "memory.stat": "anon 500\nactive_file 100\ninactive_file 200\nfile 300\n"}, [Use(600, 1000)]),
        ({"memory.max": "max\n", "memory.current": "900\n"}, []),
        ({"memory/memory.limit_in_bytes": "2000", "memory/memory.usage_in_bytes": "50"}, [Use(50, 2000)]),
        ({"memory/memory.limit_in_bytes": str(2**63 - 4096), "memory/memory.usage_in_bytes": "50"}, []),
        ({}, []),
    ],
)  # fmt: skip
def test_what_a_control_group_allows(tmp_path: Path, files: dict[str, str], expected: list[Use]) -> None:
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    found = uses(tmp_path, tmp_path / "no-process")
    assert [use for use in found if use.what == "memory"] == expected


def test_this_process_is_within_this_machine() -> None:
    found = uses()
    assert found
    assert all(0 < use.used < use.limit for use in found)


def test_r_fault_52_descriptors_have_a_limit_too() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = next(use for use in uses() if use.what == "file descriptors")
    taken = [os.open(os.devnull, os.O_RDONLY) for _ in range(20)]
    try:
        use = next(use for use in uses() if use.what == "file descriptors")
        assert use.used >= before.used + 20
        assert use.limit == soft
        resource.setrlimit(resource.RLIMIT_NOFILE, (use.used, hard))
        watermark = Watermark()
        watermark.look()
        assert watermark.is_high
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in taken:
            os.close(descriptor)
    watermark.look()
    assert not watermark.is_high
