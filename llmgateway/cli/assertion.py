"""What an identity provider says of somebody, read from a file: JSON, or the XML of a SAML response.

It is for trying out rules, so nothing is verified: neither signature nor time, neither issuer nor audience.
The XML may still come from anywhere: it is read to no more than its elements, attributes and text, and what
declares a document type, and with it entities, is refused.
"""

import binascii
from base64 import b64decode
from io import BytesIO
from pathlib import Path
from urllib.parse import unquote_to_bytes
from xml.parsers import expat

import msgspec
from msgspec import Struct

from llmgateway.domain.errors import InvalidRequest, shown
from llmgateway.domain.identity import Attributes

LARGEST = 1024 * 1024
SAML = "urn:oasis:names:tc:SAML:2.0:assertion "  # before the names of its elements
DEEPEST = 100  # elements within one another

Values = list[str] | str


class Asserted(Struct, frozen=True):
    """`provider` is the issuer's entityID, "" where the file names none."""

    provider: str
    attributes: Attributes


class _Written(Struct, forbid_unknown_fields=True):
    attributes: dict[str, Values]
    provider: str = ""
    subject: str = ""


def read_assertion(path: Path) -> Asserted:
    """Raises `InvalidRequest` with what is wrong."""
    try:
        with path.open("rb") as opened:
            content = opened.read(LARGEST + 1)
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror or error}.") from None
    if len(content) > LARGEST:
        raise InvalidRequest(f"{path} is larger than {LARGEST} bytes.")
    content = content.removeprefix(b"\xef\xbb\xbf").strip()
    if content.startswith(b"{"):
        return _of_json(content)
    return _Reader().read(content if content.startswith(b"<") else _decoded(content))


def _of_json(content: bytes) -> Asserted:
    """The attributes alone, or with who says so."""
    try:
        try:
            written = msgspec.json.decode(content, type=_Written)
        except msgspec.ValidationError:
            written = _Written(msgspec.json.decode(content, type=dict[str, Values]))
    except msgspec.DecodeError as error:
        message = 'The JSON must be attributes with their values, such as {"affiliation": ["employee"]}'
        raise InvalidRequest(f"{message}: {error}.") from None
    given = {name: (one,) if isinstance(one, str) else tuple(one) for name, one in written.attributes.items()}
    return Asserted(written.provider, given)


def _decoded(content: bytes) -> bytes:
    """As browsers send it: in base64, maybe as a field of a form."""
    try:
        written = unquote_to_bytes(content.removeprefix(b"SAMLResponse="))
        found = b64decode(b"".join(written.split()), validate=True)
    except binascii.Error:
        found = b""
    if not found.lstrip().startswith(b"<"):
        raise InvalidRequest("The file is neither JSON nor the XML of a SAML response, nor that in base64.")
    return found.lstrip()


class _Reader:
    """Follows the elements down to the values of attributes."""

    def __init__(self) -> None:
        self._path: list[str] = []
        self._found: dict[str, list[str]] = {}
        self._friendly: dict[str, list[str]] = {}
        self._values: tuple[list[str], list[str]] = ([], [])
        self._text: list[str] | None = None
        self._issuer = ""
        self._assertions = 0

    def read(self, content: bytes) -> Asserted:
        parser = expat.ParserCreate(namespace_separator=" ")
        parser.StartDoctypeDeclHandler = self._refuse
        parser.EntityDeclHandler = self._refuse
        parser.StartElementHandler = self._begin
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._say
        try:
            parser.ParseFile(BytesIO(content))
        except expat.ExpatError as error:
            raise InvalidRequest(f"The XML is broken: {error}.") from None
        if self._assertions != 1:
            message = f"A SAML response holds exactly one assertion, not {self._assertions}."
            raise InvalidRequest(message)
        named = self._friendly | self._found  # as at a sign-in: a name goes before a friendly one
        return Asserted(self._issuer, {name: tuple(values) for name, values in named.items()})

    def _refuse(self, *_: object) -> None:
        raise InvalidRequest("The XML declares a document type or entities; no SAML response does.")

    def _begin(self, name: str, attributes: dict[str, str]) -> None:
        if len(self._path) >= DEEPEST:
            raise InvalidRequest(f"The XML has more than {DEEPEST} elements within one another.")
        self._path.append(name)
        if name == f"{SAML}EncryptedAssertion":
            raise InvalidRequest("The assertion is encrypted; give its attributes as JSON.")
        if name == f"{SAML}Assertion":
            self._assertions += 1
        elif name == f"{SAML}Attribute":
            called = attributes.get("FriendlyName")
            self._values = (
                self._found.setdefault(attributes.get("Name", ""), []),
                self._friendly.setdefault(called, []) if called else [],
            )
        elif name == f"{SAML}AttributeValue" or self._is_issuer():
            self._text = []

    def _say(self, text: str) -> None:
        """Comments between two pieces are none of the value."""
        if self._text is not None:
            self._text.append(text)

    def _end(self, name: str) -> None:
        text = "".join(self._text or ())
        if name == f"{SAML}AttributeValue":
            for values in self._values if text.strip() else ():
                values.append(text.strip())
            self._text = None
        elif self._is_issuer():
            self._issuer, self._text = text.strip(), None
        self._path.pop()

    def _is_issuer(self) -> bool:
        """The assertion's own, not that of the response around it."""
        return self._path[-2:] == [f"{SAML}Assertion", f"{SAML}Issuer"]


def told(names: Attributes) -> str:
    """Which attributes there are, for who looks for the one that a rule should have named."""
    return ", ".join(shown(name, 80) for name in sorted(names)) or "none"
