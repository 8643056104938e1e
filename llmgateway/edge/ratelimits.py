"""The `x-ratelimit-*` headers of an answer: OpenAI's names, of whichever limit has least left."""

from collections.abc import Iterable, Sequence

from llmgateway.domain.limits import LimitName, Standing

REQUESTS: frozenset[LimitName] = frozenset({"requests_per_minute"})
TOKENS: frozenset[LimitName] = frozenset({"tokens_per_minute", "tokens_per_day", "tokens_per_month"})


def ratelimit_headers(standings: Sequence[Standing]) -> list[tuple[bytes, bytes]]:
    return [
        header
        for unit, names in ((b"requests", REQUESTS), (b"tokens", TOKENS))
        for header in _headers(unit, [standing for standing in standings if standing.name in names])
    ]


def go_duration(seconds: float) -> bytes:
    """As Go writes durations, which SDKs' users parse: 28ms, 1s, 6m0s, 5h3m0s."""
    if seconds < 1:
        return b"%dms" % max(0, round(seconds * 1000))
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    if hours:
        return b"%dh%dm%ds" % (hours, minutes, whole % 60)
    return b"%dm%ds" % (minutes, whole % 60) if minutes else b"%ds" % whole


def _headers(unit: bytes, standings: Iterable[Standing]) -> Iterable[tuple[bytes, bytes]]:
    tightest = min(standings, key=lambda standing: standing.left, default=None)
    if tightest is not None:
        yield b"x-ratelimit-limit-%b" % unit, b"%d" % tightest.limit
        yield b"x-ratelimit-remaining-%b" % unit, b"%d" % tightest.left
        yield b"x-ratelimit-reset-%b" % unit, go_duration(tightest.reset)
