from pathlib import Path

import pytest

from llmgateway.domain.fields import BROKEN
from llmgateway.domain.scalars import Filled
from llmgateway.settings.filling import Source, filled


def fill(text: object, folder: Path, **environ: str) -> tuple[object, list[str]]:
    complaints: list[str] = []
    return filled(text, "a", Source(environ, folder), complaints), complaints


@pytest.mark.parametrize(
    ("written", "full"),
    [
        ("${NAME}", "value"),
        ("a-${NAME}-${OTHER}", "a-value-2"),
        ("$$", "$"),
        ("$${NAME}", "${NAME}"),
        ("5$", "5$"),
        ("$NAME", "$NAME"),
        ("${ NAME }", "value"),
        ("${file:one}", "from a file"),
        ("$$$$", "$$"),
        ("$$${NAME}", "$value"),
        ("${KEY}", "from a file"),
        ("plain", "plain"),
    ],
)
def test_places_are_filled(tmp_path: Path, written: str, full: str) -> None:
    (tmp_path / "one").write_text("from a file\n")
    found = fill(written, tmp_path, NAME="value", OTHER="2", KEY_FILE=str(tmp_path / "one"))
    assert found == (full, [])


def test_absolute_paths_and_trees(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("1")
    tree = {"x": ["${N}", None, True, {"y": f"${{file:{tmp_path}/one}}"}], "${N}": "k"}
    assert fill(tree, Path("/"), N="v") == ({"x": ["v", None, True, {"y": "1"}], "${N}": "k"}, [])


def test_what_is_filled_in_is_not_filled_again_and_not_shown(tmp_path: Path) -> None:
    value, complaints = fill("${A}", tmp_path, A="${B}", B="x")
    assert (value, complaints) == ("${B}", [])
    assert isinstance(value, Filled)
    assert not isinstance(fill("$$", tmp_path)[0], Filled)


@pytest.mark.parametrize(
    ("written", "complaint"),
    [
        ("${ABSENT}", "a: ${ABSENT} is not set in the environment"),
        ("${EMPTY}", "a: ${EMPTY} is not set in the environment"),
        ("${file:absent}", "a: cannot read the file"),
        ("${NAME", "a: has a ${ without its }; a $ itself is $$"),
        ("${}", "a: ${} is neither ${NAME} nor ${file:PATH}; a $ itself is $$"),
        ("${NAME:-x}", "a: ${NAME:-x} is neither"),
    ],
)
def test_what_cannot_be_filled_is_complained_about(tmp_path: Path, written: str, complaint: str) -> None:
    value, complaints = fill(written, tmp_path, NAME="x", EMPTY="")
    assert value is BROKEN
    assert len(complaints) == 1
    assert complaints[0].startswith(complaint)
