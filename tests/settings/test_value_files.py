from pathlib import Path

import pytest

from llmgateway.domain.scalars import Filled, Wrong
from llmgateway.settings.value_files import LARGEST, value_in


def test_the_value_is_the_text_without_white_space_around_it(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes("  clé \r\n".encode())
    assert value_in(tmp_path / "key") == "clé"
    assert isinstance(value_in(tmp_path / "key"), Filled)


def test_what_holds_no_value_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text(" \n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "large").write_bytes(b"x" * (LARGEST + 1))
    for name, complaint in {
        "empty": "is empty",
        "binary": "not UTF-8",
        "large": "larger than",
        "absent": "cannot read",
        ".": "cannot read",
        "a\x00b": "is not the path",
    }.items():
        with pytest.raises(Wrong, match=complaint):
            value_in(tmp_path / name)
