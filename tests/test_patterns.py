"""Every pattern of ours takes linear time: what somebody sends cannot keep the event loop busy (S-in-12)."""

import re
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = [path for path in sorted((ROOT / "llmgateway").rglob("*.py")) if path.stem != "__main__"]
SOURCE = "\n".join(path.read_text() for path in FILES)
AT_MOST = 0.2  # seconds of CPU for a MiB: one pass takes less than 0.08, a quadratic one hours
PIECES = (
    "a", "0", " ", ".", "-", "_", "/", "a.", "a-", "a ", "a=", ",", ", ", ";q=", '"', "\\", "%", ":", "a:",
    "@", "a@", "\n", "\r\n", "data: ", "data: \n", "{", "[", "ä", "\x00", "<", "&", "Bearer ", "http://", "$",
    "${", "aA0_",
)  # fmt: skip
ATTACKS = [piece * (2**20 // len(piece)) for piece in PIECES]


def patterns() -> Iterator[tuple[str, re.Pattern[str] | re.Pattern[bytes]]]:
    for path in FILES:
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for attribute, value in vars(import_module(name)).items():
            if isinstance(value, re.Pattern):
                yield f"{name}.{attribute}", value


FOUND = dict(patterns())


def test_patterns_are_found() -> None:
    assert len(FOUND) > 20


@pytest.mark.parametrize("name", FOUND)
def test_s_in_12_a_pattern_takes_linear_time(name: str) -> None:
    pattern = FOUND[name]
    looks = [pattern.match, pattern.fullmatch]
    if re.search(rf"\b{name.rpartition('.')[2]}\.(?:search|sub|subn|split|findall|finditer)\(", SOURCE):
        looks.append(pattern.search)
    for attack in ATTACKS:
        for text in (attack, attack + "!", "a" + attack):
            given = text if isinstance(pattern.pattern, str) else text.encode()
            for look in looks:
                began = time.process_time()
                look(given)  # type: ignore[arg-type]  # of the pattern's own kind
                assert time.process_time() - began < AT_MOST, (pattern.pattern, text[:20], look.__name__)
