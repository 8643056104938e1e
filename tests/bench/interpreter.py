"""Which Python runs the gateway: its version, how it was built as far as that can be told, and its pace."""

import platform
import sys
import sysconfig
import timeit
from typing import Any

OPTIMISED = ("--enable-optimizations", "--with-lto")  # what CPython's own build is asked for
CALLS = 10_000
TRIES = 50  # a busy machine spoils some of them


def interpreter() -> dict[str, Any]:
    """`options` are those of the build that make a Python faster. Distributions have ways of their own:
    Debian's is guided by a profile and does not say so. So the pace is measured, too."""
    said = str(sysconfig.get_config_var("CONFIG_ARGS") or "")
    return {
        "version": platform.python_version(),
        "implementation": platform.python_implementation(),
        "compiler": platform.python_compiler(),
        "prefix": sys.base_prefix,
        "options": [option for option in OPTIMISED if option in said],
        "pace_ns": round(pace(), 1),
    }


def in_words(told: dict[str, Any] | str) -> str:
    """One line for the tables; results of before know the version only."""
    if isinstance(told, str):
        return f"Python {told}."
    options = ", ".join(told["options"]) or "no option that says optimised"
    who = f"{told['implementation']} {told['version']} in {told['prefix']}"
    return f"{who}, {options}: {told['pace_ns']} ns for a call that makes an object."


class _Pair:
    __slots__ = ("one", "other")

    def __init__(self, one: object, other: object) -> None:
        self.one = one
        self.other = other


def pace() -> float:
    """Nanoseconds for a call that makes an object, the best of some tries."""

    def work() -> None:
        known: dict[int, _Pair] = {}
        for number in range(CALLS):
            known[number & 255] = _Pair(number, len(known))

    return min(timeit.repeat(work, number=1, repeat=TRIES)) / CALLS * 1e9
