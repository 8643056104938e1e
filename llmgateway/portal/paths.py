"""Addresses of places: a pattern such as /portal/keys/{id}, with values in it or after it."""

import re
from collections.abc import Mapping
from urllib.parse import quote, urlencode

PLACE = re.compile(r"\{(?P<name>\w+)(?::path)?\}")


def path_to(pattern: str, parameters: Mapping[str, str]) -> str:
    """What the pattern does not name becomes the query."""
    used = {match["name"] for match in PLACE.finditer(pattern)}
    path = PLACE.sub(lambda match: quote(parameters[match["name"]], safe="/"), pattern)
    query = urlencode({name: value for name, value in parameters.items() if name not in used and value})
    return f"{path}?{query}" if query else path
