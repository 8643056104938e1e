"""Token counts without a tokeniser: a marked estimate for when nobody who knows could be asked."""

BYTES_PER_TOKEN = (
    4  # English prose in the usual byte-pair vocabularies; other scripts have more bytes and more tokens
)


def tokens_in(size: int) -> int:
    """Estimated tokens in `size` bytes of UTF-8 text: rounded up, 0 only for nothing."""
    return -(-size // BYTES_PER_TOKEN)
