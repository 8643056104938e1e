"""The tables and the targets, on rows as a run writes them."""

from tests.bench.tables import Row, Run, figures, ratios, remarks, targets


def seen(cpu_us: float | None, **more: float | str | None) -> dict[str, float | str | None]:
    plain: dict[str, float | str | None] = {
        "cpu_us": cpu_us,
        "per_second": 1000.0,
        "errors": 0,
        "cut": 0,
        "first_error": "",
        "peak_mib": 60.0,
        "stores_us": None,
        "latency_p50_us": 120,
        "latency_p99_us": 900,
        "delay_p50_us": 100,
        "delay_p99_us": 1500,
    }
    return plain | more


def row(name: str, number: int, a: float | None, c: float | None, **more: object) -> Row:
    cases = {"A": seen(a), "C": seen(c)}
    return {"name": name, "round": number, "cases": cases, "idle_mib": 45.0, **more}


def rows() -> list[Row]:
    return [
        row("direct", 0, None, None),
        row("nginx", 0, 10.0, 15.0),
        row("litellm", 0, 8000.0, 800.0),
        row("llmgateway", 0, 40.0, 27.0, booked=500, posts=500),
        row("nginx", 1, 20.0, 30.0),
        row("llmgateway", 1, 70.0, 54.0, booked=499, posts=500),
    ]


def test_ratios_compare_within_a_round() -> None:
    run = Run(rows())
    assert run.ratios("llmgateway", "nginx", "A") == [4.0, 3.5]
    assert run.ratios("litellm", "llmgateway", "A") == [200.0]
    assert "| llmgateway | 3.75 (3.50-4.00) |" in ratios(run)


def test_the_upstream_itself_costs_nothing_and_has_no_ratio() -> None:
    run = Run(rows())
    assert "| direct | - |" in figures(run)
    assert "direct" not in ratios(run)


def test_memory_of_a_stream_is_the_peak_over_idle() -> None:
    assert Run(rows()).per_stream_kib("llmgateway") == [15.36, 15.36]


def test_a_ledger_that_differs_is_a_missed_target_and_said_aloud() -> None:
    run = Run(rows())
    all_met, lines = targets(run)
    assert not all_met
    assert "MISSED        ledger" in lines
    assert "met           A: CPU per request / nginx <= 4" in lines
    assert "not measured  B" in lines
    assert "499 booked, 500 accepted by the upstream: THEY DIFFER" in remarks(run)


def test_one_error_in_a_thousand_streams_misses_the_target() -> None:
    broken = rows()
    broken[3]["cases"]["C"]["errors"] = 1
    broken[3]["cases"]["C"]["first_error"] = "closed early"
    _, lines = targets(Run(broken))
    assert "MISSED        C: errors and cut streams" in lines
    assert "case C: closed early" in remarks(Run(broken))


def test_an_unquiet_machine_is_reported() -> None:
    assert "nginx varies by 100% in case A" in remarks(Run(rows()))


def test_a_contender_that_never_started_is_a_remark_and_no_row_of_figures_breaks() -> None:
    failed: Row = {"name": "haproxy", "round": 0, "cases": {}, "idle_mib": 0, "failed": "start: ended"}
    run = Run([*rows(), failed])
    assert "- haproxy, round 0: start: ended" in remarks(run)
    assert "| haproxy | - |" in figures(run)
