"""Strict YAML: mappings, lists and text, with no guessing about what a word or a number means.

Every scalar stays the text that was written, so that 0.10 and 1.10 keep their digits; only null, true and
false are more. What YAML readers disagree about (an unquoted `no`, two equal keys, foreign tags) is an error.
"""

from collections.abc import Iterator

import yaml

from llmgateway.domain.errors import shown
from llmgateway.domain.fields import BROKEN, joined

TAG = "tag:yaml.org,2002:"
MAPPINGS, LISTS = frozenset({f"{TAG}map"}), frozenset({f"{TAG}seq"})
SCALARS = frozenset(
    TAG + kind for kind in ("str", "int", "float", "bool", "null", "timestamp", "value", "merge")
)
DEEPEST = 16
MOST_NODES = 200_000  # aliases can make a small file a huge tree


def tree_of(text: str, source: str, complaints: list[str]) -> object:
    """The document as plain values; `BROKEN` stands where a complaint was added. None for an empty one."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        complaints.append(f"{source}{where}: {error.problem or error.context or 'is not YAML'}")
        return BROKEN
    except (yaml.YAMLError, RecursionError):
        complaints.append(f"{source}: is not YAML that can be read")
        return BROKEN
    return None if node is None else _Reading(complaints).value(node, "", DEEPEST)


class _Reading:
    """One walk over a document's nodes."""

    def __init__(self, complaints: list[str]) -> None:
        self._complaints = complaints
        self._left = MOST_NODES

    def value(self, node: yaml.Node, path: str, depth: int) -> object:
        self._left -= 1
        if depth == 0 or self._left < 0:
            if self._left >= -1:  # once for the whole document
                self._complain(node, path, "is nested too deep or repeats itself too often")
            return BROKEN
        if isinstance(node, yaml.MappingNode) and node.tag in MAPPINGS:
            return dict(self._members(node, path, depth))
        if isinstance(node, yaml.SequenceNode) and node.tag in LISTS:
            return [self.value(item, f"{path}[{i}]", depth - 1) for i, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode) and node.tag in SCALARS:
            return self._scalar(node, path)
        self._complain(node, path, f"has the tag {shown(node.tag, 40)}, which is not taken here")
        return BROKEN

    def _members(self, node: yaml.MappingNode, path: str, depth: int) -> Iterator[tuple[str, object]]:
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node, path)
            if key is None:
                continue
            line = key_node.start_mark.line + 1
            if key in lines:
                self._complain(key_node, joined(path, key), f"is given twice; first on line {lines[key]}")
                continue
            lines[key] = line
            yield key, self.value(value_node, joined(path, key), depth - 1)

    def _key(self, node: yaml.Node, path: str) -> str | None:
        key = self._scalar(node, path) if isinstance(node, yaml.ScalarNode) else None
        if isinstance(key, str):
            return key
        if key is not BROKEN:
            self._complain(node, path, "has a key that is not a word; put it in quotes if it is meant as one")
        return None

    def _scalar(self, node: yaml.ScalarNode, path: str) -> object:
        written: str = node.value
        if node.style is not None or node.tag not in (f"{TAG}null", f"{TAG}bool"):
            return written
        if node.tag == f"{TAG}null":
            return None
        if written.lower() in ("true", "false"):
            return written.lower() == "true"
        self._complain(node, path, f'{written} without quotes is a word to some and a boolean to others: '
                                   f'write true or false, or "{written}" in quotes')  # fmt: skip
        return BROKEN

    def _complain(self, node: yaml.Node, path: str, what: str) -> None:
        self._complaints.append(f"{path or 'the file'}: {what} (line {node.start_mark.line + 1})")
