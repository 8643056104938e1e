"""The table of docs/operations/disasters.md, out of what was seen."""

from collections.abc import Mapping, Sequence
from typing import Any

from tests.capacity.tables import table
from tests.lab.processes import ROOT

PAGE = ROOT / "docs/operations/disasters.md"
NODES = {"10.99.0.11": "first", "10.99.0.12": "second"}
HEAD = ("killed", "answers that were whole", "that were not", "nobody was served for", "longest wait of one",
        "not ready", "a new key works after")  # fmt: skip


def row(name: str, seen: Mapping[str, Any]) -> Sequence[str]:
    failed = ", ".join(f"{count} x {what}" for what, count in sorted(seen["failed"].items()))
    unready = ", ".join(f"{NODES[node]} {seconds:.1f} s" for node, seconds in sorted(seen["unready"].items()))
    return (
        name, f"{seen['whole']}", failed or "none", f"{seen['pause']:.1f} s",
        f"{seen['wait']:.1f} s", unready or "never", f"{seen['new_key']:.1f} s",
    )  # fmt: skip


def seen_table(found: Mapping[str, Mapping[str, Any]]) -> str:
    return table(HEAD, [row(name, seen) for name, seen in found.items()])
