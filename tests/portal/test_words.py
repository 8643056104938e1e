"""Languages: which one is taken, that none lacks a text, and how numbers are written."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType

import pytest
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po

from llmgateway.control import accounts, announcements, enrol, erasure, passwords, projects, terms
from llmgateway.portal.page import TEMPLATES
from llmgateway.portal.words import LANGUAGES, LOCALES, language_of, load_words

WORDS = load_words()
SOURCES = [("**.py", "python"), ("templates/**.html", "jinja2")]
OPTIONS = {"templates/**.html": {"extensions": "jinja2.ext.i18n", "newstyle_gettext": "true"}}
PLACE = re.compile(r"%\(\w+\)s|\{\w+\}")


def texts() -> set[str]:
    """Every text of templates and code that is translated, of those that count both forms."""
    keywords = {"_": None, "gettext": None, "later": None, "ngettext": (1, 2)}
    found = extract_from_dir(TEMPLATES.parent, SOURCES, OPTIONS, keywords)
    return {text for _, _, message, _, _ in found for text in forms(message)}


def forms(text: object) -> tuple[str, ...]:
    return (
        (text,) if isinstance(text, str) else tuple(map(str, text)) if isinstance(text, tuple | list) else ()
    )


def inside(module: ModuleType) -> str:
    """What a module says, in one line: errors of its own are translated where they are shown."""
    return " ".join(re.sub(r'"\s*"', "", Path(str(module.__file__)).read_text()).split())


@pytest.mark.parametrize("code", [code for code in LANGUAGES if code != "en"])
def test_no_text_is_missing_or_left_over(code: str) -> None:
    with (LOCALES / f"{code}.po").open("rb") as source:
        catalog = read_po(source, locale=code)
    translated = {
        text: translation
        for message in catalog
        if message.id
        for text, translation in zip(forms(message.id), forms(message.string), strict=True)
    }
    assert not texts() - set(translated)
    modules = (accounts, announcements, enrol, erasure, passwords, projects, terms)
    told = "".join(inside(module) for module in modules)
    assert not [text for text in set(translated) - texts() if text not in told]
    assert all(translated.values())
    for text, translation in translated.items():
        assert sorted(PLACE.findall(text)) == sorted(PLACE.findall(translation)), text


def test_one_is_not_many() -> None:
    for code, one, many in (("en", "browser", "browsers"), ("fi", "selaimessa", "selaimessa")):
        forms_of = (WORDS[code].ngettext("in %(n)s browser", "in %(n)s browsers", n) for n in (1, 2))
        assert [said.split()[-1] for said in forms_of] == [one, many]
    fi = WORDS["fi"].ngettext
    assert [fi("and %(n)s more", "and %(n)s more", n).split()[-1] for n in (1, 2)] == ["muu", "muuta"]


@pytest.mark.parametrize(
    ("accepted", "taken"),
    [
        ("", "en"),
        ("fi", "fi"),
        ("fi-FI,fi;q=0.9,en;q=0.8", "fi"),
        ("sv,en;q=0.5,fi;q=0.7", "fi"),
        ("en-GB, fi", "en"),
        ("fi;q=0", "en"),
        ("fi;q=nonsense", "en"),
        ("de,*;q=0.1", "en"),
        (",;q=,;;", "en"),
    ],
)
def test_the_language_of_a_header(accepted: str, taken: str) -> None:
    assert language_of(accepted, LANGUAGES) == taken


def test_numbers_money_and_dates() -> None:
    english, finnish = WORDS["en"], WORDS["fi"]
    assert (english.number(1234567), finnish.number(1234567)) == ("1,234,567", "1\xa0234\xa0567")
    assert (english.short(9999), english.short(1_234_567)) == ("9,999", "1.2M")
    assert (english.money(1_500_000, "EUR"), finnish.money(1_500_000, "EUR")) == ("€1.50", "1,50\xa0€")
    assert (english.money(0, "EUR"), english.money(1_234, "EUR"), english.money(1, "EUR")) == (
        "€0.00", "€0.001234", "€0.000001",
    )  # fmt: skip
    assert english.percent(0.25) == "25%"
    moment = datetime(2026, 11, 20, 22, 30, tzinfo=UTC)
    assert english.moment(moment, "Europe/Helsinki") == "21 Nov 2026, 00:30:00"
    assert finnish.day("2026-11-20") == "20.11.2026"
    assert english.short_day("2026-11-20") == "20 Nov"
    midnight = datetime(2026, 11, 20, 22, tzinfo=UTC)
    assert english.last_day(midnight, "Europe/Helsinki") == "20 Nov 2026"
    assert english.last_day(midnight, "UTC") is None
    assert english.ago(moment, moment + timedelta(hours=3)) == "3 hours ago"
    assert finnish.ago(moment + timedelta(days=3), moment) == "3 päivän päästä"
    assert english.span(timedelta(days=7)) == "7 days"
