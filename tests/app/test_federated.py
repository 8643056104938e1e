"""Sign-in over SAML put together: checked at the start, metadata from files and addresses."""

import asyncio
import base64
import logging
import zlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from msgspec.structs import replace

from llmgateway.app import create_app
from llmgateway.app.federated import prepare
from llmgateway.domain.saml import KeyPair
from llmgateway.portal.saml import ServiceProvider
from llmgateway.settings import BadSettings, Settings, with_secrets
from tests.lab.identity import EPPN, TestIdp, new_pair
from tests.lab.waiting import eventually_answers

OURS, THEIRS, FEDERATION = new_pair("sp"), new_pair("idp"), new_pair("federation")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "sp.crt").write_text(OURS.certificate)
    (tmp_path / "sp.key").write_text(OURS.key.reveal())
    (tmp_path / "idp.xml").write_bytes(TestIdp(THEIRS).metadata())
    (tmp_path / "gateway.yaml").write_text(
        'saml:\n  certificates: [{certificate: "${file:sp.crt}", key: "${file:sp.key}"}]\n'
        "  providers: [{id: uni, name: University, metadata: idp.xml}]\n"
        "sign_in: {local: false}\ndrain: 1\ndrain_pause: 0\n"
    )
    environ = {"LLMGATEWAY_DATA_DIR": str(tmp_path / "data"), "LLMGATEWAY_LOG_LEVEL": "warning"}
    return with_secrets(Settings.load(environ, config=tmp_path / "gateway.yaml"))


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(settings, drain_pause=0)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8080") as one,
    ):
        yield one


async def test_the_page_has_its_button_and_the_way_out(client: httpx.AsyncClient) -> None:
    page = await client.get("/portal/sign-in")
    assert "University" in page.text
    assert 'name="password"' not in page.text

    async def leads_away() -> str:
        return str((await client.get("/saml/login")).headers.get("location", ""))

    assert (await eventually_answers(leads_away, "the metadata is read")).startswith(
        "https://idp.example.org"
    )


def test_without_saml_nothing_is_prepared(tmp_path: Path) -> None:
    environ = {"LLMGATEWAY_DATA_DIR": str(tmp_path / "data")}
    (tmp_path / "gateway.yaml").write_text("{}")
    assert prepare(with_secrets(Settings.load(environ, config=tmp_path / "gateway.yaml"))) is None


def test_s_saml_25_keys_that_do_not_fit_stop_the_start(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "sp.key").write_text(THEIRS.key.reveal())
    changed = Settings.load({"LLMGATEWAY_DATA_DIR": str(tmp_path / "data")}, config=settings.config)
    with pytest.raises(BadSettings) as bad:
        create_app(with_secrets(changed))
    assert bad.value.complaints == ["saml: certificate 1 and its key do not fit, or are not RSA"]


RULES = """
models: [{id: small, targets: [{provider: echo}]}, {id: large, targets: [{provider: echo}]}]
policy:
  rules: [{name: staff, when: {affiliation: employee}, grants: {roles: [user], models: [small]}}]
"""


async def arrives(client: httpx.AsyncClient, idp: TestIdp, settings: Settings, *affiliations: str) -> int:
    """The status of what somebody sees who signs in with these."""
    assert settings.file.saml is not None
    sp = ServiceProvider(settings.file.saml, settings.public_url)
    answer = await client.get("/saml/login")
    (message,) = parse_qs(urlsplit(answer.headers["location"]).query)["SAMLRequest"]
    request = zlib.decompress(base64.b64decode(message), -15).decode().partition(' ID="')[2].partition('"')[0]
    said = {EPPN: ["alice@example.org"], "affiliation": affiliations}
    document = base64.b64encode(idp.response(sp, request, attributes=said)).decode()
    headers = {"origin": "https://idp.example.org", "sec-fetch-site": "cross-site"}
    answer = await client.post("/saml/acs", data={"SAMLResponse": document}, headers=headers)
    return (await client.get(answer.headers["location"])).status_code


async def test_the_policy_decides_of_who_signs_in(settings: Settings) -> None:
    assert settings.config is not None
    settings.config.write_text(settings.config.read_text() + RULES)
    environ = {"LLMGATEWAY_DATA_DIR": str(settings.data_dir), "LLMGATEWAY_LOG_LEVEL": "critical"}
    settings = with_secrets(Settings.load(environ, config=settings.config))
    idp, app = TestIdp(THEIRS), create_app(settings, drain_pause=0)
    idp.now = datetime.now(UTC)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8080") as client,
    ):

        async def is_ready() -> bool:
            return (await client.get("/saml/login")).status_code == 303

        await eventually_answers(is_ready, "the metadata is read")
        assert await arrives(client, idp, settings, "student") == 403
        assert await arrives(client, idp, settings, "employee") == 303
        page = await client.get("/portal/models")
        assert "small" in page.text
        assert "large" not in page.text
        assert await arrives(client, idp, settings, "student") == 403  # no rule gives a role any more
        assert (await client.get("/portal/models")).status_code == 303  # nor does the session last


async def test_when_a_provider_s_certificate_ends_is_a_metric(settings: Settings, tmp_path: Path) -> None:
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=9)
    (tmp_path / "idp.xml").write_bytes(TestIdp(new_pair("soon", until=until)).metadata())
    app = create_app(settings, drain_pause=0)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8080") as client,
    ):
        sign = 'llmgateway_certificate_expiry_timestamp_seconds{certificate="provider-uni"} '

        async def told() -> list[float]:
            lines = (await client.get("/metrics")).text.splitlines()
            return [float(line.removeprefix(sign)) for line in lines if line.startswith(sign)]

        assert await eventually_answers(told, "the metadata is read") == [until.timestamp()]


class MetadataServer:
    """Serves one document; `asked` are the first lines of requests."""

    def __init__(self, document: bytes) -> None:
        self.document = document
        self.asked: list[str] = []

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked.append((await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0].decode())
        head = "HTTP/1.1 200 OK\r\ncontent-type: application/samlmetadata+xml\r\nconnection: close\r\n"
        writer.write(f"{head}content-length: {len(self.document)}\r\n\r\n".encode() + self.document)
        await writer.drain()
        writer.close()


@pytest.mark.parametrize("signer", [FEDERATION, THEIRS], ids=["federation", "stranger"])
async def test_s_saml_21_metadata_from_an_address(
    settings: Settings, signer: KeyPair, caplog: pytest.LogCaptureFixture
) -> None:
    """It is believed when the federation signed it, and its server is no replica of a model."""
    places = MetadataServer(TestIdp(THEIRS).metadata(sign_by=signer))
    async with await asyncio.start_server(places.answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert settings.file.saml is not None
        provider = replace(
            settings.file.saml.providers[0], metadata=f"http://127.0.0.1:{port}/entities/idp?app=1",
            metadata_certificate=FEDERATION.certificate,
        )  # fmt: skip
        saml = replace(settings.file.saml, providers=(provider,))
        caplog.set_level(logging.INFO, "llmgateway.portal.saml_idps")
        app = create_app(replace(settings, file=replace(settings.file, saml=saml)), drain_pause=0)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8080") as client,
        ):

            async def is_judged() -> bool:
                return any("is known" in one.message or "not usable" in one.message for one in caplog.records)

            await eventually_answers(is_judged, "the metadata is read")
            answer = await client.get("/saml/login")
            assert answer.status_code == (303 if signer is FEDERATION else 200)
            assert places.asked[0] == "GET /entities/idp?app=1 HTTP/1.1"
            assert settings.admin_key is not None
            headers = {"authorization": f"Bearer {settings.admin_key.reveal()}"}
            assert str(port) not in (await client.get("/admin/providers", headers=headers)).text
