"""The estimate: nothing is nothing, anything is something."""

from llmgateway.domain.estimate import tokens_in


def test_estimates() -> None:
    assert [tokens_in(size) for size in (0, 1, 4, 5, 400)] == [0, 1, 1, 2, 100]
