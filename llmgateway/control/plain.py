"""Values as JSON has them."""


def plain(value: object) -> object:
    """For what the encoder does not know: drivers have kinds of integers of their own."""
    if isinstance(value, int):
        return int(value)
    raise TypeError(f"no JSON for {type(value).__name__}")
