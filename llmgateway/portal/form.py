"""What a form of ours sends: fields of text, read with bounds."""

from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request

from llmgateway.domain.errors import ClientGone, InvalidRequest, TooLarge, UnsupportedMedia
from llmgateway.portal.words import later

MOST_BYTES, MOST_FIELDS = 64 * 1024, 2000
KIND = "application/x-www-form-urlencoded"


class Form:
    """Fields by name; a field may be given several times."""

    def __init__(self, fields: list[tuple[str, str]] | None = None) -> None:
        self._fields: dict[str, list[str]] = {}
        for name, value in fields or ():
            self._fields.setdefault(name, []).append(value)

    def text(self, name: str) -> str:
        """The first one, without the spaces around it."""
        return self.raw(name).strip()

    def raw(self, name: str) -> str:
        """As it was typed: what a password is."""
        return self._fields.get(name, [""])[0]

    def all(self, name: str) -> list[str]:
        return self._fields.get(name, [])

    def has(self, name: str) -> bool:
        return name in self._fields

    def whole(self, name: str) -> int | None:
        """None where nothing was written. Spaces between groups of digits are as people write them."""
        written = "".join(self.text(name).split())
        if not written:
            return None
        if not (written.isascii() and written.isdecimal() and len(written) <= 15):
            raise InvalidRequest(later("Please write a whole number."), param=name)
        return int(written)


async def read_form(request: Request, *, most: int = MOST_BYTES) -> Form:
    """Raises `UnsupportedMedia`, `TooLarge`, `InvalidRequest`."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != KIND:
        raise UnsupportedMedia(later("This address takes forms only."))
    body = b""
    try:
        async for piece in request.stream():
            body += piece
            if len(body) > most:
                raise TooLarge(later("That is more than this form takes."))
    except ClientDisconnect:
        raise ClientGone("The browser closed the connection.") from None
    return form_of(body)


def form_of(body: bytes) -> Form:
    try:
        text = body.decode("ascii")
        fields = parse_qsl(text, keep_blank_values=True, max_num_fields=MOST_FIELDS, errors="strict")
    except ValueError:
        raise InvalidRequest(later("This form cannot be read.")) from None
    return Form(fields)
