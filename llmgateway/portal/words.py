"""The portal's languages: translated texts, and numbers, money and dates as each language writes them.

English is what the code says; `locale/*.po` hold the others and are read as they are, without a build step.
"""

import gettext
from collections.abc import Iterable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from io import BytesIO
from pathlib import Path
from zoneinfo import ZoneInfo

from babel import Locale
from babel.dates import format_date, format_datetime, format_skeleton, format_timedelta
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.numbers import format_compact_decimal, format_currency, format_decimal, format_percent

LOCALES = Path(__file__).with_name("locale")
LANGUAGES: Mapping[str, str] = {"en": "English", "fi": "Suomi"}
SMALL, TINY = Decimal("0.1"), Decimal("0.01")  # of money: two decimals say too little of it, and four


def later(text: str) -> str:
    """Marks a text that is translated where it is shown."""
    return text


class Words:
    """One language. Times are shown in `zone`, which is named with them."""

    def __init__(self, code: str, translations: gettext.NullTranslations) -> None:
        self.code = code
        self.gettext = translations.gettext
        self.ngettext = translations.ngettext
        self._locale = Locale.parse(code if code != "en" else "en_GB")

    def number(self, value: float) -> str:
        return str(format_decimal(value, locale=self._locale))

    def short(self, value: int) -> str:
        """12 345 678 as 12.3 million, for headlines."""
        if abs(value) < 10_000:
            return self.number(value)
        return str(format_compact_decimal(value, fraction_digits=1, locale=self._locale))

    def percent(self, share: float) -> str:
        return str(format_percent(share, locale=self._locale))

    def money(self, micros: int, currency: str) -> str:
        amount = Decimal(micros) / 1_000_000
        if TINY <= abs(amount) < SMALL:
            amount = round(amount, 4)
        if not 0 < abs(amount) < SMALL:
            return format_currency(amount, currency, locale=self._locale)
        pattern = self._locale.currency_formats["standard"].pattern.replace(".00", ".0000##")
        return format_currency(amount, currency, pattern, locale=self._locale, currency_digits=False)

    def moment(self, moment: datetime, zone: str) -> str:
        return format_datetime(moment, "medium", tzinfo=ZoneInfo(zone), locale=self._locale)

    def last_day(self, moment: datetime, zone: str) -> str | None:
        """The day that ends at this moment, if one does."""
        local = moment.astimezone(ZoneInfo(zone))
        return None if local.time() != time() else self.day(local.date() - timedelta(days=1))

    def day(self, day: date | datetime | str) -> str:
        return format_date(date.fromisoformat(day) if isinstance(day, str) else day, locale=self._locale)

    def short_day(self, day: str) -> str:
        return format_skeleton("MMMd", datetime.fromisoformat(day), locale=self._locale)

    def ago(self, moment: datetime, now: datetime) -> str:
        return self.span(moment - now, with_direction=True)

    def span(self, span: timedelta, *, with_direction: bool = False) -> str:
        return format_timedelta(span, locale=self._locale, add_direction=with_direction, threshold=1.5)


def load_words() -> Mapping[str, Words]:
    """Every language by its code."""
    return {code: Words(code, _translations(code)) for code in LANGUAGES}


def language_of(accepted: str, known: Iterable[str]) -> str:
    """The first language of an Accept-Language header that there is, by its weight; else English."""
    weighted = []
    for place, part in enumerate(accepted.split(",")[:20]):
        name, _, weight = part.strip().partition(";q=")
        weighted.append((-_weight(weight), place, name.partition("-")[0].lower()))
    return next((name for weight, _, name in sorted(weighted) if name in known and weight), "en")


def _weight(text: str) -> float:
    try:
        return float(text) if text else 1.0
    except ValueError:
        return 0.0


def _translations(code: str) -> gettext.NullTranslations:
    path = LOCALES / f"{code}.po"
    if not path.exists():
        return gettext.NullTranslations()
    compiled = BytesIO()
    with path.open("rb") as source:
        write_mo(compiled, read_po(source, locale=code))
    compiled.seek(0)
    return gettext.GNUTranslations(compiled)
