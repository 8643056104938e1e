"""Sign-in over SAML put together: checked at the start, metadata from files and addresses."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from llmgateway.app import create_app
from llmgateway.app.federated import prepare
from llmgateway.settings import BadSettings, Settings, with_secrets
from tests.lab.identity import TestIdp, new_pair
from tests.lab.waiting import eventually_answers

OURS, THEIRS = new_pair("sp"), new_pair("idp")


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
