"""The portal inside the application: embedded, its session opens the operators' API, a restart keeps it."""

from pathlib import Path

import httpx

from llmgateway.app import create_app
from llmgateway.app.in_force import InForce
from llmgateway.app.portal import rules_of
from llmgateway.settings import Settings, with_secrets

SAME = {"sec-fetch-site": "same-origin"}
URL = "http://127.0.0.1:8080"


async def test_a_session_of_an_administrator_opens_the_operators_api_and_outlives_a_restart(
    settings: Settings,
) -> None:
    cookies: dict[str, str] = {}
    for is_second in (False, True):
        app = create_app(settings)
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url=URL, cookies=cookies, headers=SAME) as client,
        ):
            if not is_second:
                assert (await client.get("/admin/users")).status_code == 401
                fields = {"login": "ann", "password": "correct horse"}
                assert (await client.post("/portal/sign-up", data=fields)).status_code == 303
                cookies = dict(client.cookies)
            assert (await client.get("/portal")).status_code == 200
            assert (await client.get("/admin/users")).status_code == 200
            refused = await client.post("/admin/keys", json={"user": "ann", "name": "x"})
            assert refused.status_code == 401
            assert (
                await client.get("/admin/users", headers={"sec-fetch-site": "cross-site"})
            ).status_code == 401


def test_who_may_sign_in_follows_from_the_settings(settings: Settings) -> None:
    rules = rules_of(InForce(settings))
    assert (rules.is_private, rules.sign_in, rules.sign_up) == (True, True, True)


async def test_limits_in_force_are_shown_as_they_stand(settings: Settings, config: Path) -> None:
    config.write_text("limits: {default: {tokens_per_day: 5000}, users: {ann: {requests_per_minute: 7}}}")
    environ = {"LLMGATEWAY_DATA_DIR": str(settings.data_dir), "LLMGATEWAY_LOG_LEVEL": "warning"}
    app = create_app(with_secrets(Settings.load(environ, config=config)), drain_pause=0)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url=URL, headers=SAME) as client,
    ):
        await client.post("/portal/sign-up", data={"login": "ann", "password": "correct horse"})
        page = (await client.get("/portal")).text
    assert "5,000 left of 5,000" in page
    assert "7 left of 7" in page
