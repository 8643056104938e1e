"""Small text files that hold one value, as container platforms mount secrets."""

from pathlib import Path

from llmgateway.domain.scalars import Filled, Wrong

LARGEST = 64 * 1024


def value_in(path: Path) -> Filled:
    """The text of the file without the white space around it."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise Wrong(f"cannot read the file {path}: {error.strerror or error}") from None
    except ValueError:
        raise Wrong("is not the path of a file") from None
    if len(content) > LARGEST:
        raise Wrong(f"the file {path} is larger than {LARGEST} bytes: that is no secret")
    try:
        text = content.decode().strip()
    except UnicodeDecodeError:
        raise Wrong(f"the file {path} is not UTF-8 text") from None
    if not text:
        raise Wrong(f"the file {path} is empty")
    return Filled(text)
