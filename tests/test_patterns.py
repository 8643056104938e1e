"""Every pattern of ours takes linear time: what somebody sends cannot keep the event loop busy (S-in-12)."""

import re
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
FILES = [path for path in sorted((ROOT / "llmgateway").rglob("*.py")) if path.stem != "__main__"]
SOURCE = "\n".join(path.read_text() for path in FILES)
SIZE = 2**15
AT_MOST = 0.05  # seconds of CPU for so much: one pass takes less than 0.003, a quadratic one more than 1
PIECES = (
    "a", "0", " ", ".", "-", "_", "/", "a.", "a-", "a ", "a=", ",", ", ", ";q=", '"', "\\", "%", ":", "a:",
    "@", "a@", "\n", "\r\n", "data: ", "data: \n", "{", "[", "ä", "\x00", "<", "&", "Bearer ", "http://", "$",
    "${", "aA0_", '"usage" ',
)  # fmt: skip
HEADS = ("", "a", "a ", "a=", "a:", ",", '"')  # a run is tried again from what stands before it ...
ENDS = ("", "!", "x", ";")  # ... when what follows does not fit
ATTACKS = [head + piece * (SIZE // len(piece)) + end for head in HEADS for piece in PIECES for end in ENDS]


SEARCHES = ("search", "sub", "subn", "split", "findall", "finditer")
Pattern = re.Pattern[str] | re.Pattern[bytes]


def patterns() -> Iterator[tuple[str, Pattern, bool]]:
    """Also those of which a module keeps only what it does with them; and whether that is a search."""
    for path in FILES:
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for attribute, value in vars(import_module(name)).items():
            pattern = getattr(value, "__self__", value)
            if isinstance(pattern, re.Pattern):
                called = re.findall(rf"\b{attribute}\.(\w+)\(", SOURCE)
                looks = called if pattern is value else [value.__name__]
                yield f"{name}.{attribute}", pattern, not {*looks}.isdisjoint(SEARCHES)


FOUND = {name: (pattern, searches) for name, pattern, searches in patterns()}


def test_patterns_are_found() -> None:
    assert len(FOUND) > 30


@pytest.mark.parametrize("name", FOUND)
def test_s_in_12_a_pattern_takes_linear_time(name: str) -> None:
    pattern, searches = FOUND[name]
    looks = [pattern.match, pattern.fullmatch, *([pattern.search] if searches else [])]
    for attack in ATTACKS:
        given = attack if isinstance(pattern.pattern, str) else attack.encode()
        for look in looks:
            spent = [seconds(look, given)]
            if spent[0] >= AT_MOST:  # once more: it may have been the collector
                spent.append(seconds(look, given))
            assert min(spent) < AT_MOST, (pattern.pattern, attack[:20], attack[-3:], look.__name__, spent)


def seconds(look: Callable[[Any], object], given: str | bytes) -> float:
    began = time.process_time()
    look(given)
    return time.process_time() - began
