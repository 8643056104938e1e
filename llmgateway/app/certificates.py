"""When certificates end: ours of SAML, those that sign metadata, and those that providers sign with."""

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import timedelta

from llmgateway.domain.ports import Clock
from llmgateway.domain.saml import Saml
from llmgateway.wire.certificate import NotACertificate, ends_at

log = logging.getLogger(__name__)

SOON = timedelta(days=30)  # as the alert has it
LOOK_PERIOD = 60.0  # seconds
AGAIN = timedelta(days=1).total_seconds()  # until the same is said again

Ends = Iterable[tuple[str, float]]
"""Names, and seconds since 1970."""


class Certificates:
    """`ours` are asked every time, since the configuration may change; other sources come while it runs."""

    def __init__(self, ours: Callable[[], Saml | None], clock: Clock) -> None:
        self._clock = clock
        self._sources: list[Callable[[], Ends]] = [lambda: ends(ours())]
        self._said: dict[str, float] = {}

    def also(self, source: Callable[[], Ends]) -> None:
        self._sources.append(source)

    def ends(self) -> Iterator[tuple[str, float]]:
        for source in self._sources:
            yield from source()

    def warn(self) -> None:
        """Of those that end soon, once a day."""
        now, today = self._clock.now(), self._clock.monotonic()
        for name, end in self.ends():
            left = end - now.timestamp()
            if left < SOON.total_seconds() and today - self._said.get(name, -math.inf) >= AGAIN:
                self._said[name] = today
                fields = {"certificate": name, "days": math.floor(left / 86_400)}
                log.warning("a certificate ends soon, or has ended", extra={"fields": fields})


def ends(saml: Saml | None) -> Iterator[tuple[str, float]]:
    """Those that the configuration file holds. Ours are counted from 1, as the file does."""
    if saml is None:
        return
    named = [(f"saml-{number}", pair.certificate) for number, pair in enumerate(saml.pairs, 1)]
    named += [(f"metadata-{one.id}", one.metadata_certificate or "") for one in saml.providers]
    for name, text in named:
        with suppress(NotACertificate):
            yield name, ends_at(text).timestamp()
