"""The dashboards, and their queries as Grafana would send them."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.deploy.manifests import DEPLOY

DASHBOARDS = sorted((DEPLOY / "grafana/dashboards").glob("*.json"))
WORDS: Mapping[str, str] = {"$__rate_interval": "5m", "$__range": "6h", "$model": ".*"}

Dashboard = dict[str, Any]


def load(path: Path) -> Dashboard:
    found: Dashboard = json.loads(path.read_text())
    return found


def of_panel(panel: dict[str, Any]) -> Iterator[str]:
    yield from (target["expr"] for target in panel["targets"])


def queries(dashboard: Dashboard) -> Iterator[str]:
    for panel in dashboard["panels"]:
        yield from of_panel(panel)
    for note in dashboard["annotations"]["list"]:
        yield note["expr"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]["query"]


def filled(query: str, **words: str) -> str:
    """With Grafana's own words put in; `rate_interval="10s"` replaces one of them."""
    given = {**WORDS, **{f"$__{name}": value for name, value in words.items()}}
    for word, value in given.items():
        query = query.replace(word, value)
    return query


def is_of_prometheus(query: str) -> bool:
    """Others are Grafana's: they fill a list to choose from."""
    return not query.startswith("label_values(")
