"""Asks a deployment over HTTP/1.1 and keeps what came: every header, and the body's bytes with their times.

It is the standard library's client, since every header has to be ours and nothing may be put right: the
relay's client writes its own headers, and an SDK's hides redirects, compression and pauses.
"""

import http.client
import socket
import ssl
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import SplitResult

import msgspec
from msgspec import Struct

from llmgateway.cli.conform.endings import Broken, Failed, Late, Skipped
from llmgateway.domain.secret import Secret

MOST = 8 * 1024 * 1024  # bytes of an answer that are read
ENCODINGS = "gzip, deflate"  # what all SDKs take
GZIP_OR_ZLIB = 47  # zlib's word for either, with the largest window
JSON = "application/json"
OWN_MODEL = "echo"  # costs nothing and can be told to be slow

T = TypeVar("T")


class Answer(Struct, frozen=True, kw_only=True):
    """`pieces` are of the body, without its compression, each with the seconds since the request; `is_cut`
    where it ended before its end. `certificate` is the server's, over TLS."""

    status: int
    headers: tuple[tuple[str, str], ...]
    pieces: tuple[tuple[float, bytes], ...] = ()
    is_cut: bool = False
    certificate: Mapping[str, Any] | None = None

    @property
    def body(self) -> bytes:
        return b"".join(piece for _, piece in self.pieces)

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)

    @property
    def media_type(self) -> str:
        return (self.header("content-type") or "").partition(";")[0].strip().lower()


class Deployment:
    """`base` is what an SDK is given as base URL; `tls` says whom to trust where that is https. All answers
    are kept in `seen`."""

    def __init__(
        self,
        base: SplitResult,
        key: Secret,
        *,
        model: str | None,
        timeout: float,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.base = base
        self.timeout = timeout
        self.seen: list[Answer] = []
        self.chosen = model
        self.silence = 0.0
        self._key = key
        self._tls = tls
        self._made: dict[str, Any] = {}

    def once(self, name: str, make: Callable[[], T]) -> T:
        """What several checks look at is asked for once; that it failed is kept, too."""
        if name not in self._made:
            try:
                self._made[name] = make()
            except (Failed, Skipped) as ending:
                self._made[name] = ending
        found = self._made[name]
        if isinstance(found, Failed | Skipped):
            raise found
        made: T = found
        return made

    @property
    def model(self) -> str:
        if self.chosen is None:
            raise Skipped("no model is known; name one with --model")
        return self.chosen

    def choose(self, models: list[str]) -> None:
        """Of those that are there, where none was named."""
        if self.chosen is None and models:
            self.chosen = OWN_MODEL if OWN_MODEL in models else models[0]

    def bearer(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self._key.reveal()}"}

    def key_as(self, header: str) -> dict[str, str]:
        return {header: self._key.reveal()}

    def without_key(self, text: str) -> str:
        """A server may say the key again."""
        return text.replace(self._key.reveal(), repr(self._key))

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        return self.ask("GET", path, headers=headers)

    def post(self, path: str, value: object) -> Answer:
        return self.ask("POST", path, value if isinstance(value, bytes) else msgspec.json.encode(value))

    def ask(
        self, method: str, path: str, body: bytes | None = None, *, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """On a connection of its own. `headers` go in the place of the key."""
        with Line(self) as line:
            return line.ask(method, path, body, headers=headers)

    def connect(self) -> http.client.HTTPConnection:
        host = self.base.hostname or ""
        if self._tls is not None:
            return http.client.HTTPSConnection(host, self.base.port, timeout=self.timeout, context=self._tls)
        return http.client.HTTPConnection(host, self.base.port, timeout=self.timeout)


class Line:
    """A connection that is kept as long as the server keeps it; `is_open` after an answer tells whether."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._connection = deployment.connect()
        self._connection.auto_open = 0  # else a closed one is made anew, unseen
        self._socket: socket.socket | None = None
        self.is_open = False

    def __enter__(self) -> "Line":
        with _in_words(self._deployment.timeout):
            self._connection.connect()
        self._socket, self.is_open = self._connection.sock, True
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def ask(
        self, method: str, path: str, body: bytes | None = None, *, headers: Mapping[str, str] | None = None,
        patience: float | None = None,
    ) -> Answer:  # fmt: skip
        """`patience` is in seconds, for the whole answer."""
        deployment = self._deployment
        seconds = deployment.timeout if patience is None else patience
        named = {"accept": "*/*", "accept-encoding": ENCODINGS, "user-agent": "llmgateway-conform"}
        if body is not None:
            named |= {"content-type": JSON, "content-length": str(len(body))}
        named |= deployment.bearer() if headers is None else headers
        with _in_words(seconds):
            until = time.monotonic() + seconds
            self._send(method, deployment.base.path + path, named, body)
            answer = self._read(until)
        deployment.seen.append(answer)
        return answer

    def _send(self, method: str, target: str, headers: Mapping[str, str], body: bytes | None) -> None:
        connection = self._connection
        connection.putrequest(method, target, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        try:
            connection.endheaders(body)
        except (BrokenPipeError, ConnectionResetError):
            if body is None:
                raise  # else: it did not want the rest of the body, and may have said why

    def _read(self, until: float) -> Answer:
        began, link = time.monotonic(), self._socket
        assert link is not None, "it is connected"
        link.settimeout(max(0.01, until - began))
        response = self._connection.getresponse()
        pieces: list[tuple[float, bytes]] = []
        is_cut, plain = False, _decoder(response.getheader("content-encoding"))
        try:
            while piece := response.read1(65_536):
                pieces.append((time.monotonic() - began, plain(piece)))
                _go_on(link, until, sum(len(one) for _, one in pieces))
        except (http.client.IncompleteRead, ConnectionResetError):
            is_cut = True
        certificate = link.getpeercert() if isinstance(link, ssl.SSLSocket) else None
        is_cut = is_cut or bool(response.length)
        response.close()
        self.is_open = not response.will_close and not is_cut
        headers = tuple((name.lower(), value.strip()) for name, value in response.getheaders())
        return Answer(
            status=response.status, headers=headers, pieces=tuple(pieces), is_cut=is_cut,
            certificate=certificate,
        )  # fmt: skip


def _decoder(encoding: str | None) -> Callable[[bytes], bytes]:
    """Piece by piece, so that each keeps its time; what was not asked for stays as it is."""
    if encoding not in ("gzip", "deflate"):
        return lambda piece: piece
    inflated = zlib.decompressobj(GZIP_OR_ZLIB)
    return lambda piece: inflated.decompress(piece, MOST + 1)


def _go_on(link: socket.socket, until: float, size: int) -> None:
    """The time is the whole answer's, and not each piece's."""
    if size > MOST:
        raise Failed(f"an answer of at most {MOST} bytes", "a longer one")
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    link.settimeout(left)


@contextmanager
def _in_words(seconds: float) -> Iterator[None]:
    """What sockets and protocols raise, as what came in the place of an answer."""
    try:
        yield
    except TimeoutError:
        raise Late("an answer", f"none within {seconds:g} s") from None
    except ssl.SSLCertVerificationError as error:
        raise Broken("a certificate that is trusted", error.verify_message) from None
    except zlib.error as error:
        raise Broken("a body that is compressed as it says", error) from None
    except http.client.HTTPException as error:
        raise Broken("HTTP/1.1", f"{type(error).__name__}: {error}".strip(": ")) from None
    except OSError as error:
        raise Broken("an answer", error.strerror or str(error)) from None
