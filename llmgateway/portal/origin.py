"""Where a request comes from: whether the browser means us, and whether one of our own pages sent it.

A browser says with every request which site made it (Fetch Metadata), or at least with every POST which
origin did. What says neither is refused: every browser since 2020 says one of them.
"""

from urllib.parse import urlsplit

from starlette.requests import Request

SAFE_METHODS = frozenset({"GET", "HEAD"})
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class Origins:
    """`public_url` is the only address that users see. One on this machine has several names and, behind no
    proxy, whatever port it listens on; none of them can be another site's."""

    def __init__(self, public_url: str) -> None:
        self.public_url = public_url.rstrip("/")
        parts = urlsplit(public_url)
        self.origin = f"{parts.scheme}://{parts.netloc}".lower()
        self.is_secure = parts.scheme == "https"
        self.is_private = (parts.hostname or "") in LOOPBACK

    def base_of(self, request: Request) -> str:
        """The address to tell whoever asked; to be used where `is_at_home`."""
        return f"http://{request.headers['host']}" if self.is_private else self.public_url

    def is_at_home(self, request: Request) -> bool:
        """Whether the browser asked for us by our own name: a name of another's that leads to our address
        would make its pages ours."""
        hosts = request.headers.getlist("host")
        if len(hosts) != 1:
            return False
        if self.is_private:
            return _host_of(f"//{hosts[0]}") in LOOPBACK
        return self._is_own(f"{urlsplit(self.origin).scheme}://{hosts[0]}")

    def is_from_our_page(self, request: Request) -> bool:
        """What may change something."""
        if not self.is_at_home(request):
            return False
        sites = request.headers.getlist("sec-fetch-site")
        origins = request.headers.getlist("origin")
        if origins and (len(origins) != 1 or not self._is_own_origin(origins[0], request)):
            return False
        return sites == ["same-origin"] if sites else bool(origins)

    def is_asked_for(self, request: Request) -> bool:
        """What only reads: not if another site's page sent the browser here."""
        if request.method not in SAFE_METHODS:
            return self.is_from_our_page(request)
        sites = request.headers.getlist("sec-fetch-site")
        return self.is_at_home(request) and (not sites or sites in (["same-origin"], ["none"]))

    def _is_own_origin(self, origin: str, request: Request) -> bool:
        if self.is_private:
            return origin.lower() == f"http://{request.headers['host']}".lower()
        return self._is_own(origin)

    def _is_own(self, origin: str) -> bool:
        default = ":443" if self.is_secure else ":80"
        return origin.lower().removesuffix(default) == self.origin.removesuffix(default)


def _host_of(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
