"""A mapping that people wrote, read field by field: complaints are collected, and reading goes on."""

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Final, TypeVar

from llmgateway.domain.errors import shown
from llmgateway.domain.scalars import Reader, Wrong, described

PLAIN = re.compile(r"[A-Za-z0-9_-]+")
BROKEN: Final = object()
"""Stands where a value was that has been complained about already."""

T = TypeVar("T")
D = TypeVar("D")


class Fields:
    """One mapping at `path`. Every field that is asked for is known; `done` complains about all others."""

    def __init__(self, given: Mapping[str, object], path: str, complaints: list[str]) -> None:
        self._given = given
        self._path = path
        self._complaints = complaints
        self._known: list[str] = []

    def take(self, name: str, read: Reader[T], default: D) -> T | D:
        value = self.raw(name)
        return default if value is None else attempt(read, value, default, self.at(name), self._complaints)

    def need(self, name: str, read: Reader[T], default: T) -> T:
        """As `take`, for a field that must be there; `default` stands in after the complaint."""
        if self.raw(name) is None:
            self.complain(name, "is missing")
        return self.take(name, read, default)

    def section(self, name: str) -> "Fields":
        """The mapping under `name`, empty where there is none."""
        value = self.raw(name)
        return fields_of({} if value is None else value, self.at(name), self._complaints)

    def items(self, name: str) -> list[tuple[str, object]]:
        """The elements of the list under `name`, each with its path."""
        value = self.raw(name)
        if value is None or value is BROKEN:
            return []
        if not isinstance(value, list | tuple):
            self.complain(name, f"must be a list, not {described(value)}")
            return []
        return [(f"{self.at(name)}[{i}]", element) for i, element in enumerate(value)]

    def elements(self, name: str, read: Reader[T]) -> list[T]:
        """The elements of the list under `name`, each read; those that cannot be are left out."""
        found: list[T] = []
        for path, value in self.items(name):
            one = attempt(read, value, None, path, self._complaints)
            if one is not None:
                found.append(one)
        return found

    def each(self) -> list[tuple[str, str, object]]:
        """All fields of a mapping whose keys are names of things: key, path, value."""
        self._known.extend(self._given)
        return [(key, self.at(key), value) for key, value in self._given.items()]

    def raw(self, name: str) -> object:
        """The value as it is written; None where it is absent or null."""
        self._known.append(name)
        return self._given.get(name)

    def at(self, name: str) -> str:
        return joined(self._path, name)

    def complain(self, name: str, what: str) -> None:
        self._complaints.append(f"{self.at(name)}: {what}")

    def done(self) -> None:
        for key in self._given:
            if key not in self._known:
                self.complain(key, f"is unknown{suggestion(key, self._known)}")


def joined(path: str, name: str) -> str:
    if not PLAIN.fullmatch(name):
        return f'{path}["{shown(name)}"]'
    return f"{path}.{name}" if path else name


def fields_of(value: object, path: str, complaints: list[str]) -> Fields:
    """A value that must be a mapping; what is none is complained about and read as empty."""
    if isinstance(value, Mapping):
        return Fields(value, path, complaints)
    if value is not BROKEN:
        complaints.append(f"{path}: must be a mapping of names to values, not {described(value)}")
    return Fields({}, path, [])  # that its fields are missing is no news


def attempt(read: Reader[T], value: object, default: D, path: str, complaints: list[str]) -> T | D:
    if value is BROKEN:
        return default
    try:
        return read(value)
    except Wrong as wrong:
        complaints.append(f"{path}: {wrong}")
        return default


def suggestion(name: str, known: Iterable[str], *, prefix: str = "") -> str:
    """What may have been meant, as the end of a complaint about an unknown name. A prefix that many names
    share makes none of them more alike."""
    names = {one.removeprefix(prefix): one for one in known}
    close = get_close_matches(name.removeprefix(prefix), names, n=1, cutoff=0.7)
    if close:
        return f"; did you mean '{names[close[0]]}'?"
    return f"; known are {', '.join(names)}" if 0 < len(names) <= 20 else ""
