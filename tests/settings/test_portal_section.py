"""The terms of use as the file has them."""

from pathlib import Path

import pytest

from llmgateway.domain.terms import Terms
from llmgateway.settings import BadSettings, Settings
from llmgateway.settings.portal_section import portal_entry


def terms_in(path: Path, text: str) -> Terms | None:
    path.write_text(text)
    return Settings.load({}, config=path).file.portal.terms


def test_none_unless_they_are_there(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    assert terms_in(path, "") is None
    assert terms_in(path, "portal: {}") is None
    (tmp_path / "terms.txt").write_text("# Terms\n\nBe kind.\n")
    read = terms_in(path, 'portal: {terms: {version: "2026-11", text: "${file:terms.txt}"}}')
    assert read == Terms(version="2026-11", text="# Terms\n\nBe kind.")
    read = terms_in(path, "portal:\n  terms:\n    version: 3\n    text: |\n      One\n\n      Two\n")
    assert read == Terms(version="3", text="One\n\nTwo")
    entry = portal_entry(Settings.load({}, config=path).file.portal)
    assert entry == {"terms": {"version": "3", "text": "One\n\nTwo"}}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("portal: {terms: {text: x}}", "portal.terms.version: is missing"),
        ("portal: {terms: {version: x}}", "portal.terms.text: is missing"),
        ("portal: {terms: {version: true, text: x}}", "portal.terms.version: must be text"),
        ("portal: {terms: {version: xx, text: ['x']}}", "portal.terms.text: must be text, not a list"),
        ('portal: {terms: {version: xx, text: "a\\u0007b"}}', "must hold no control characters"),
        (f"portal: {{terms: {{version: {'x' * 41}, text: x}}}}", "must be a short word"),
        ("portal: {term: {version: x, text: x}}", "portal.term: is unknown; did you mean 'terms'?"),
    ],
)
def test_what_they_cannot_be(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(BadSettings) as bad:
        terms_in(tmp_path / "gateway.yaml", text)
    assert any(complaint in one for one in bad.value.complaints), bad.value.complaints
