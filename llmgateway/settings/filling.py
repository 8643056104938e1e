"""`${NAME}` and `${file:PATH}` in text of the YAML file, filled from the environment and from files."""

import re
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from llmgateway.domain.errors import shown
from llmgateway.domain.fields import BROKEN, joined
from llmgateway.domain.scalars import Filled, Wrong
from llmgateway.settings.value_files import value_in

PLACE = re.compile(r"\$\$|\$\{([^{}]*)(\})?")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
FILE = "file:"


class Source(Struct, frozen=True):
    """Where values come from; paths are relative to `folder`, where the YAML file lies."""

    environ: Mapping[str, str]
    folder: Path

    def value(self, place: str) -> str:
        if place.startswith(FILE):
            path = Path(place.removeprefix(FILE).strip()).expanduser()
            return value_in(self.folder / path)
        if not NAME.fullmatch(place):
            raise Wrong(f"${{{shown(place)}}} is neither ${{NAME}} nor ${{file:PATH}}; a $ itself is $$")
        if value := self.environ.get(place, "").strip():
            return value
        if file := self.environ.get(f"{place}_FILE", "").strip():
            return value_in(Path(file).expanduser())
        raise Wrong(f"${{{place}}} is not set in the environment")


def filled(tree: object, path: str, source: Source, complaints: list[str]) -> object:
    """The same tree with every place in its values filled, and `BROKEN` for what is complained about."""
    match tree:
        case dict():
            return {key: filled(value, joined(path, key), source, complaints) for key, value in tree.items()}
        case list():
            return [filled(value, f"{path}[{i}]", source, complaints) for i, value in enumerate(tree)]
        case str() if "$" in tree:
            try:
                return _text(tree, source)
            except Wrong as wrong:
                complaints.append(f"{path}: {wrong}")
                return BROKEN
        case _:
            return tree


def _text(written: str, source: Source) -> str:
    def fill(place: re.Match[str]) -> str:
        if place[0] == "$$":
            return "$"
        if place[2] is None:
            raise Wrong("has a ${ without its }; a $ itself is $$")
        return source.value(place[1].strip())

    text = PLACE.sub(fill, written)
    return Filled(text) if "${" in written.replace("$$", "") else text
