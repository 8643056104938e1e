"""The README is a product: its tables are the code's, and its commands run."""

from pathlib import Path

from llmgateway.settings import settings_table

README = Path(__file__).parents[1] / "README.md"


def between(text: str, name: str) -> str:
    return text.partition(f"<!-- {name} -->")[2].partition(f"<!-- /{name} -->")[0].strip()


def test_the_settings_table_is_the_code_s() -> None:
    assert between(README.read_text(), "settings") == settings_table().strip()


def test_every_link_into_the_repository_leads_somewhere() -> None:
    targets = [part.partition(")")[0] for part in README.read_text().split("](")[1:]]
    missing = [t for t in targets if "://" not in t and not (README.parent / t).exists()]
    assert not missing


def test_the_map_names_every_package() -> None:
    named = README.read_text()
    packages = [p.parent.name for p in (README.parent / "llmgateway").glob("*/__init__.py")]
    assert not [p for p in packages if f"`{p}/`" not in named and f"`{p}" not in named]
