"""Terms of use: a text with a version, which people accept before they use the gateway."""

from msgspec import Struct


class Terms(Struct, frozen=True, kw_only=True):
    """`text` is plain: paragraphs with empty lines between them, `#` before a heading, `-` before a point."""

    version: str
    text: str
