"""What models there are, as people see them."""

from llmgateway.domain.catalog import Model, Target
from llmgateway.domain.pricing import Price
from tests.control.desk import Desk
from tests.portal.house import PASSWORD, Browser, Portal, browsing, plain_user

TARGETS = tuple(Target(url=f"http://10.0.0.{n}:8000/v1", model="m", credential="hush") for n in (1, 2))


async def test_models_with_their_figures_and_snippets(desk: Desk) -> None:
    price = Price(id="p", input=200_000, output=800_000, cached_input=50_000, request=10_000)
    model = Model(id="org/big-1", aliases=("default",), targets=TARGETS, context=32768, max_output=8192,
                  price=price, data_class="private")  # fmt: skip
    desk.configure(base_models=(model,))
    portal = Portal(desk)
    async with browsing(portal) as browser:
        await plain_user(portal, browser)
        await browser.get("/portal/models")
        assert 'href="/portal/models/org/big-1"' in browser.page
        assert "€0.20" in browser.page
        assert "32,768 tokens" in browser.page
        assert "Available" in browser.page
        await browser.get("/portal/models/org/big-1")
        for words in ("8,192 tokens", "€0.0500", "private", "baseURL: &#34;http://127.0.0.1:8080/v1&#34;"):
            assert words in browser.page
        for secret in ("10.0.0.1", "hush", PASSWORD):
            assert secret not in browser.page


async def test_the_state_of_its_replicas(desk: Desk) -> None:
    desk.configure(base_models=(Model(id="m", targets=TARGETS),))
    portal = Portal(desk)
    async with browsing(portal) as browser:
        await plain_user(portal, browser)
        for target, words in zip(TARGETS, ("Partly available", "Not available"), strict=True):
            replica = portal.replicas.of(target)
            for _ in range(50):
                replica.failed()
            await browser.get("/portal/models")
            assert words in browser.page


async def test_searching(alice: Browser) -> None:
    await alice.get("/portal/models?q=EMBED")
    assert "org/embed" in alice.page
    assert "qwen3-32b" not in alice.page
    await alice.get("/portal/models?q=<b>")
    assert "No models found" in alice.page
    assert 'value="&lt;b&gt;"' in alice.page


async def test_without_any_model(desk: Desk) -> None:
    desk.configure(base_models=())
    portal = Portal(desk)
    async with browsing(portal) as browser:
        await plain_user(portal, browser)
        for path in ("/portal/models", "/portal/playground"):
            await browser.get(path)
            assert "There is no model that you may use." in browser.page
