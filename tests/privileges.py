"""What every route answers to everybody: compared with `privileges.csv`, and written by
`python -m tests.privileges` after a look at what changed."""

import asyncio
import csv
import io
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
from starlette.routing import Route

from llmgateway.admin.routes import ROUTES
from llmgateway.app import create_app
from llmgateway.app.application import Llmgateway
from llmgateway.domain.endpoints import ENDPOINTS
from llmgateway.portal.routes import PLACES
from llmgateway.portal.sessions import CSRF_HEADER
from llmgateway.settings import Settings, with_secrets

TABLE = Path(__file__).with_name("privileges.csv")
ROLES = ("nobody", "key", "user", "operator", "admin", "admin_key")
URL = "http://127.0.0.1:8080"
ADMIN_KEY = "operators-credential-0123456789abcdef"
SAME = {"sec-fetch-site": "same-origin"}
PASSWORD = "correct horse"
OBJECTS = {
    "{id}": "{key}",
    "{id:path}": "ann",
    "{scope}": "user",
    "{name}": "app.css",
    "{rest:path}": "nothing",
}
OF_MODELS = ("/v1/models/", "/admin/models/", "/portal/models/", "/portal/operators/model")

Row = dict[str, str]


class Somebody:
    """A role's way in."""

    def __init__(self, client: httpx.AsyncClient, headers: Mapping[str, str], csrf: str = "") -> None:
        self._client = client
        self._headers = headers
        self._csrf = csrf

    async def answer(self, method: str, path: str) -> str:
        """The status; with the way to the sign-in where that is the answer."""
        headers = {**SAME, **self._headers}
        if path.startswith("/admin"):
            headers |= {CSRF_HEADER: self._csrf} if self._csrf else {}
        elif path.startswith("/portal") and method == "POST":
            headers["content-type"] = "application/x-www-form-urlencoded"
        elif method == "POST":
            headers["content-type"] = "application/json"
        is_endless = path.endswith(("/events", "/stream")) and method == "GET"
        answer = await self._client.request("HEAD" if is_endless else method, path, headers=headers)
        place = answer.headers.get("location", "").partition("?")[0]
        return f"{answer.status_code} {place.rpartition('/')[2]}" if place else str(answer.status_code)


def inventory(app: Llmgateway) -> list[tuple[str, str]]:
    """Every method and path that somebody could ask: of tables, and of what the application really mounts."""
    found = [("POST", path) for path in ENDPOINTS]
    found += [(operation.method, operation.path) for operation in ROUTES]
    found += [(method, place.path) for place in PLACES for method in ("GET", "POST")]
    known = {path for _, path in found}
    for route in app.router.routes:
        assert isinstance(route, Route)
        if route.path not in known:
            methods = route.methods or {"GET", "POST"}
            found += [(method, route.path) for method in sorted(methods - {"HEAD"})]
    return sorted(set(found), key=lambda one: (one[1], one[0]))


def address(path: str, key: str) -> str:
    """With objects that there are."""
    for place, name in OBJECTS.items():
        path = path.replace(place, "echo" if path.startswith(OF_MODELS) and "id" in place else name)
    return path.replace("{key}", key)


@asynccontextmanager
async def everybody(directory: Path) -> AsyncIterator[tuple[Llmgateway, dict[str, Somebody], str]]:
    environ = {
        "LLMGATEWAY_DATA_DIR": str(directory), "LLMGATEWAY_LOG_LEVEL": "critical", "ADMIN_KEY": ADMIN_KEY,
        "LLMGATEWAY_METRICS": "admin",
    }  # fmt: skip
    (directory / "gateway.yaml").write_text("drain: 1\ndrain_pause: 0\n")
    app = create_app(with_secrets(Settings.load(environ, config=directory / "gateway.yaml")))
    transport, admin_key = httpx.ASGITransport(app), {"authorization": f"Bearer {ADMIN_KEY}"}
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url=URL) as plain,
    ):
        asked = {"user": "olga", "name": "k"}
        issued = (await plain.post("/admin/keys", json=asked, headers=admin_key)).json()
        subject = (await plain.post("/admin/keys", json=asked, headers=admin_key)).json()
        people = {
            "nobody": Somebody(plain, {}),
            "key": Somebody(plain, {"authorization": f"Bearer {issued['key']}"}),
            "admin_key": Somebody(plain, admin_key),
        }
        for role, login in (("admin", "ann"), ("operator", "olli"), ("user", "ursula")):
            client = httpx.AsyncClient(transport=transport, base_url=URL)
            sent = {"login": login, "password": PASSWORD}
            assert (await client.post("/portal/sign-up", data=sent, headers=SAME)).status_code == 303
            roles = {"roles": ["user", role]}
            await plain.patch(f"/admin/users/{login}", json=roles, headers=admin_key)
            page = (await client.get("/portal")).text
            csrf = page.partition('name="csrf-token" content="')[2].partition('"')[0]
            people[role] = Somebody(client, {}, csrf)
        yield app, people, subject["id"]


async def table(directory: Path) -> list[Row]:
    async with everybody(directory) as (app, people, key):
        return [
            {"method": method, "path": path}
            | {role: await people[role].answer(method, address(path, key)) for role in ROLES}
            for method, path in inventory(app)
        ]


def read() -> list[Row]:
    with TABLE.open(newline="") as file:
        return list(csv.DictReader(file))


def written(rows: Sequence[Row]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, ["method", "path", *ROLES], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        TABLE.write_text(written(asyncio.run(table(Path(made)))))
