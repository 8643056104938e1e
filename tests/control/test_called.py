"""One model under several names."""

from llmgateway.control.called import names_of, under_their_ids
from llmgateway.domain.catalog import Catalog
from llmgateway.domain.ports import UsageRow
from tests.control.desk import model

CATALOG = Catalog([model("m", "default", "n"), model("n")])


def row(requests: int, **group: str | None) -> UsageRow:
    return UsageRow(
        group=group, requests=requests, prompt=1, completion=2, cached=0, reasoning=0, cost=10 * requests
    )


def test_an_id_stands_for_its_aliases_too() -> None:
    assert names_of(CATALOG, "m") == ("m", "default")
    assert [names_of(CATALOG, name) for name in ("default", "n", "gone")] == [("default",), ("n",), ("gone",)]


def test_rows_that_differ_in_the_name_only_become_one() -> None:
    rows = [row(1, model="default", user="a"), row(2, model="gone", user="a"), row(4, model="m", user="a"),
            row(8, model="m", user=None)]  # fmt: skip
    found = under_their_ids(rows, CATALOG)
    assert [(one.group, one.requests, one.prompt, one.cost) for one in found] == [
        ({"model": "gone", "user": "a"}, 2, 1, 20),
        ({"model": "m", "user": None}, 8, 1, 80),
        ({"model": "m", "user": "a"}, 5, 2, 50),
    ]
    assert under_their_ids([row(3)], CATALOG) == [row(3)]
