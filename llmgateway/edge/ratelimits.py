"""The `x-ratelimit-*` headers of an answer: OpenAI's names, of whichever limit has least left."""

from collections.abc import Iterable

from llmgateway.domain.limits import Standing

NAMES = {
    unit: tuple(f"x-ratelimit-{what}-{unit}".encode() for what in ("limit", "remaining", "reset"))
    for unit in ("requests", "tokens")
}


def ratelimit_headers(standings: Iterable[Standing]) -> list[tuple[bytes, bytes]]:
    of_requests: Standing | None = None
    of_tokens: Standing | None = None
    for standing in standings:
        name = standing.name
        if name == "requests_per_minute":
            if of_requests is None or standing.left < of_requests.left:
                of_requests = standing
        elif name.startswith("tokens_per_") and (of_tokens is None or standing.left < of_tokens.left):
            of_tokens = standing
    headers: list[tuple[bytes, bytes]] = []
    for names, tightest in zip(NAMES.values(), (of_requests, of_tokens), strict=True):
        if tightest is not None:
            said = (b"%d" % tightest.limit, b"%d" % tightest.left, go_duration(tightest.reset))
            headers += zip(names, said, strict=True)
    return headers


def go_duration(seconds: float) -> bytes:
    """As Go writes durations, which SDKs' users parse: 28ms, 1s, 6m0s, 5h3m0s."""
    if seconds < 1:
        return b"%dms" % max(0, round(seconds * 1000))
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    if hours:
        return b"%dh%dm%ds" % (hours, minutes, whole % 60)
    return b"%dm%ds" % (minutes, whole % 60) if minutes else b"%ds" % whole
