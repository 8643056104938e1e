"""What is taken out: conditions under which something is refused, alternatives in them, calls that check, and
comparisons of digests."""

import ast
from collections.abc import Iterator
from typing import NamedTuple


class Mutant(NamedTuple):
    """`what` was there at `line`; `source` is the module without it."""

    line: int
    what: str
    source: str


def mutants(source: str) -> Iterator[Mutant]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.If) and _refuses(node.body[0]):
            yield _mutant(source, node.test, "False")
            if isinstance(node.test, ast.BoolOp) and isinstance(node.test.op, ast.Or):
                yield from (_mutant(source, one, "False") for one in node.test.values)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("compare_digest"):
            yield _mutant(source, node, "True")
        elif isinstance(node, ast.Expr) and _is_check(node.value):
            yield _mutant(source, node, "pass")


def _refuses(node: ast.stmt) -> bool:
    """By raising, or by an answer that says no."""
    if isinstance(node, ast.Return) and isinstance(node.value, ast.Constant):
        return node.value.value in (None, False)
    return isinstance(node, ast.Raise)


def _is_check(node: ast.expr) -> bool:
    """A call that raises or does nothing."""
    name = ast.unparse(node.func).rpartition(".")[2] if isinstance(node, ast.Call) else ""
    return name.lstrip("_").startswith(("check", "ensure", "equal", "refuse", "guard"))


def _mutant(source: str, node: ast.expr | ast.stmt, instead: str) -> Mutant:
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    lines = source.encode().splitlines(keepends=True)
    before = b"".join(lines[: node.lineno - 1]) + lines[node.lineno - 1][: node.col_offset]
    after = lines[node.end_lineno - 1][node.end_col_offset :] + b"".join(lines[node.end_lineno :])
    gone = source.encode()[len(before) : len(source.encode()) - len(after)].decode()
    return Mutant(node.lineno, " ".join(gone.split()), (before + instead.encode() + after).decode())
