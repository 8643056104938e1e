"""The portal in a real browser: with and without scripts, for everybody, in both colours, on phones."""

import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from playwright.async_api import Browser, expect

from tests.lab.browser import DESKTOP, PHONE, Window, chromium, window
from tests.lab.client import Request, chat
from tests.lab.gateway import Gateway
from tests.lab.upstream import ScriptedUpstream
from tests.lab.waiting import eventually_answers

pytestmark = pytest.mark.e2e

CONFIG = """
drain: 1
drain_pause: 0
models:
  - {id: qwen3-32b, context: 32768, price: {input: 0.2, output: 0.8}, targets: [{provider: echo}]}
  - {id: "odd/<svg/onload=alert(1)>", targets: [{provider: echo}]}
  - {id: held, targets: [{url: "${LLM_DEFAULT_URL}/hold-after-3/v1"}]}
"""
MARKUP = "img, [onload], [onerror]"
ODD_MODEL = "odd/<svg/onload=alert(1)>"
OPERATORS = (
    "/people", "/people/new", "/person/ann", "/person/aino", "/person-state/aino", "/person-forget/aino",
    "/projects", "/projects/new", "/project/lab", "/project-end/lab", "/keys", "/models", "/model/qwen3-32b",
    "/models/new", "/limits", "/limits/user/ann", "/limits/default/default", "/usage?by=user&and=model",
    "/requests", "/live", "/audit", "/announcements", "/config",
)  # fmt: skip
ODD = '<img src=x onerror="alert(1)">'
PAGES = (
    "", "/keys", "/keys/new", "/usage", "/requests", "/models", "/models/qwen3-32b", "/playground",
    "/account", "/account/forget", "/nothing",
)  # fmt: skip
PASSWORD = "correct horse battery"
LOOKS: list[dict[str, Any]] = [
    {"viewport": DESKTOP, "color_scheme": "light", "locale": "en-GB"},
    {"viewport": PHONE, "color_scheme": "dark", "locale": "fi-FI"},
]
LOOK_IDS = ["desktop-light", "phone-dark-finnish"]
STATUS = re.compile(r"^\d{3}")
NO_SCRIPTS: dict[str, Any] = {"java_script_enabled": False}


@pytest.fixture(scope="module")
async def gateway(anyio_backend: str) -> AsyncIterator[Gateway]:
    async with (
        ScriptedUpstream() as upstream,
        Gateway.embedded({"LLM_DEFAULT_URL": upstream.url}, config=CONFIG) as gateway,
    ):
        yield gateway


@pytest.fixture(scope="module")
async def browser(anyio_backend: str) -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
async def state(browser: Browser, gateway: Gateway) -> Any:
    """The cookies of the first account, made without a script, with some use of a key of odd name."""
    async with window(browser, gateway.url, **NO_SCRIPTS) as shown:
        await shown.go("/")
        await shown.page.fill("#f-login", "ann")
        await shown.page.fill("#f-name", ODD)
        await shown.page.fill("#f-password", PASSWORD)
        await shown.page.click("form .button")
        await expect(shown.page.locator("h1")).to_have_text(f"Hello, {ODD}")
        secret = await make_key(shown, ODD)
        answer = await gateway.ask(Request("POST", "/v1/chat/completions", secret, json=chat("qwen3-32b")))
        assert answer.status == 200
        await gateway.ledger(1, user="ann")
        await furnish(shown, gateway)
        return await shown.page.context.storage_state()


async def furnish(shown: Window, gateway: Gateway) -> None:
    """What operators' pages show: others' keys, a project, limits, an announcement, with names that are
    markup."""
    page = shown.page
    await gateway.admin("POST", "/users", {"id": "aino", "name": ODD})
    await gateway.create_key("aino", ODD)
    await gateway.admin("PUT", "/limits/user/ann", {"tokens_per_day": 5_000_000})
    await gateway.admin("PUT", "/limits/default", {"requests_per_minute": 600})
    await shown.go("/portal/operators/projects/new")
    await page.fill("#f-id", "lab")
    await page.fill("#f-name", ODD)
    await page.fill("#f-responsible", "aino")
    await page.click("main form .button")
    await page.fill("#f-member", "aino")
    await page.click("main >> text=Add")
    await page.fill("#f-key_name", ODD)
    await page.click("text=Create the key")
    await shown.go("/portal/operators/announcements")
    await page.fill("#f-text", ODD)
    await page.click("main form:has(#f-text) .button")
    await expect(page.locator(".announced")).to_contain_text(ODD)


async def make_key(shown: Window, name: str) -> str:
    await shown.go("/portal/keys/new")
    await shown.page.fill("#f-name", name)
    await shown.page.click("main form .button")
    return await shown.page.inner_text("#secret")


async def test_without_scripts_all_but_trying_calls_works(
    browser: Browser, gateway: Gateway, state: Any
) -> None:
    async with window(browser, gateway.url, storage_state=state, **NO_SCRIPTS) as shown:
        page = shown.page
        secret = await make_key(shown, "laptop")
        asked = Request("POST", "/v1/chat/completions", secret, json=chat("qwen3-32b"))
        assert (await gateway.ask(asked)).status == 200
        await shown.go("/portal/keys")
        await page.click("text=laptop")
        await page.click("text=Revoke the key")
        await page.click("text=Yes, revoke it")
        await expect(page.get_by_role("status")).to_contain_text("The key is revoked.")
        assert (await gateway.ask(asked)).status == 401
        await page.click("text=Suomi")
        await expect(page.locator("html")).to_have_attribute("lang", "fi")
        await page.click("text=Tumma")
        await expect(page.locator("html")).to_have_attribute("data-theme", "dark")
        await page.click("text=English")
        await shown.go("/portal/playground")
        await expect(page.get_by_role("alert")).to_contain_text("needs JavaScript")
        await shown.go("/docs")
        await page.locator("noscript a").click()
        assert page.url.endswith("/openapi.json")
    assert PASSWORD not in gateway.output()
    assert secret not in gateway.output()


@pytest.mark.parametrize("look", LOOKS, ids=LOOK_IDS)
async def test_every_page_is_for_everybody(
    browser: Browser, gateway: Gateway, state: Any, look: dict[str, Any]
) -> None:
    """And s_csp_02: no name became markup, no page tried what its policy forbids."""
    key = (await gateway.admin("GET", "/keys?user=ann")).json["data"][0]["id"]
    wrong: dict[str, object] = {}
    async with window(browser, gateway.url, storage_state=state, **look) as shown:
        for path in (*PAGES, f"/keys/{key}", f"/keys/{key}/revoke"):
            await shown.go(f"/portal{path}")
            wrong[path] = await shown.violations() or await shown.page.locator(MARKUP).count() or None
        await shown.go("/portal/keys/new")
        await shown.page.fill("#f-name", "none")
        await shown.page.check("[value=some]")
        await shown.page.click("main form .button")
        await expect(shown.page.locator(".wrong")).to_be_visible()
        wrong["a refused form"] = await shown.violations() or None
        for path in OPERATORS:
            await shown.go(f"/portal/operators{path}")
            wrong[path] = await shown.violations() or await shown.page.locator(MARKUP).count() or None
        assert shown.complaints == []
    async with window(browser, gateway.url, **look) as shown:
        for path in ("/sign-in", "/sign-up"):
            await shown.go(f"/portal{path}")
            wrong[path] = await shown.violations() or None
    assert {path: found for path, found in wrong.items() if found} == {}


async def test_the_playground_streams_with_the_persons_own_key(
    browser: Browser, gateway: Gateway, state: Any
) -> None:
    async with window(browser, gateway.url, storage_state=state) as shown:
        page = shown.page
        await shown.go("/portal/playground")
        await page.check("[data-compare]")
        await page.fill("#question", f"Say {ODD} back")
        await page.keyboard.press("Control+Enter")
        for pane in ("a", "b"):
            region = page.locator(f"[aria-labelledby=pane-{pane}]")
            await expect(region.locator(".theirs .bubble-words")).to_have_text(f"Say {ODD} back")
            await expect(region.locator("[data-figures]")).to_contain_text("tokens/s")
        assert await shown.violations() == []
        assert await page.locator(MARKUP).count() == 0
        assert shown.complaints == []
        await page.fill("#question", "And again")
        await page.click("[data-send]")
        await expect(page.locator("[aria-labelledby=pane-a] .theirs")).to_have_count(2)
    records = await gateway.ledger(4, user="ann")
    keys = {one["id"]: one for one in (await gateway.admin("GET", "/keys?user=ann")).json["data"]}
    played = [record for record in records if keys[record["key_id"]]["purpose"] == "playground"]
    assert len(played) >= 2
    assert {record["user"] for record in played} == {"ann"}


async def test_what_fails_in_the_playground_is_said_there(
    browser: Browser, gateway: Gateway, state: Any
) -> None:
    async with window(browser, gateway.url, storage_state=state) as shown:
        await shown.go("/portal/playground")
        await shown.page.evaluate("document.querySelector('[data-model]').options[0].value = 'gone'")
        await shown.page.fill("#question", "Hello")
        await shown.page.click("[data-send]")
        await expect(shown.page.locator(".wrong")).to_contain_text("That did not work: The model 'gone'")


async def tried(shown: Window, operation: str, **entered: str) -> str:
    """What the reference says of a call that was tried there; `entered` is by the name of a field."""
    call = shown.page.locator(f"#operations-{operation}")
    if not await call.locator(".opblock-body").count():
        await call.locator(".opblock-summary-control").click()
        await call.get_by_role("button", name="Try it out").click()
    for label, value in entered.items():
        field = call.get_by_label(label.replace("_", " "), exact=True)
        await (field.select_option(value) if label == "Example" else field.fill(value))
    await call.get_by_role("button", name="Execute").click()
    await expect(call.locator(".loading-container")).to_have_count(0)
    answered = call.locator(".live-responses-table")
    await expect(answered.locator("tbody .response-col_status").first).to_have_text(STATUS)
    return await answered.inner_text()


async def test_s_csp_02_the_reference_tries_calls_in_the_session(
    browser: Browser, gateway: Gateway, state: Any
) -> None:
    """With nothing pasted, nothing loaded from elsewhere and nothing tried that the pages' policy forbids."""
    asked: set[str] = set()
    async with window(browser, gateway.url, storage_state=state) as shown:
        page = shown.page
        page.on("request", lambda request: asked.add("/".join(request.url.split("/")[:3])))
        await shown.go("/portal/api")
        await expect(page.locator(".opblock").first).to_be_visible()
        assert await shown.violations() == []
        said = await tried(shown, "calls-post_v1_chat_completions")
        assert said.split()[:3] == ["Code", "Details", "200"]
        assert '"content": "Hello!"' in said
        assert "data: [DONE]" in await tried(shown, "calls-post_v1_chat_completions", Example="stream")
        await expect(page.locator(".curl")).to_contain_text("Authorization: Bearer YOUR_KEY")
        assert '"id": "qwen3-32b"' in await tried(shown, "models-get_v1_models_id")
        assert "400" in await tried(shown, "calls-post_v1_embeddings", Request_body="{")
        await page.locator("#operations-tag-operators").click()
        assert '"data"' in await tried(shown, "operators-get_admin_usage", user="ann")
        assert await shown.violations() == []
        assert "lgw_" not in await page.content()
        assert await page.locator(MARKUP).count() == 0
        assert shown.complaints == []
    assert asked == {gateway.url}
    records = await gateway.ledger(2, user="ann", model="qwen3-32b")
    keys = {one["id"]: one for one in (await gateway.admin("GET", "/keys?user=ann")).json["data"]}
    assert "playground" in {keys[record["key_id"]]["purpose"] for record in records}


async def test_the_reference_takes_a_key_of_who_is_not_signed_in(browser: Browser, gateway: Gateway) -> None:
    secret = (await gateway.create_key("aino", "reference")).secret
    async with window(browser, gateway.url, **LOOKS[1]) as shown:
        page = shown.page
        await shown.go("/docs#/calls/post_v1_embeddings")
        call = page.locator("#operations-calls-post_v1_embeddings")
        await call.get_by_role("button", name="Try it out").click()
        assert "401" in await tried(shown, "calls-post_v1_embeddings")
        await page.locator(".btn.authorize").click()
        dialog = page.get_by_role("dialog")
        assert await shown.violations() == []
        await dialog.get_by_role("textbox").first.fill(secret)
        await dialog.get_by_role("button", name="Apply credentials").first.click()
        await page.keyboard.press("Escape")
        await expect(dialog).to_have_count(0)
        body = '{"model": "qwen3-32b", "input": "Hello"}'
        assert '"embedding"' in await tried(shown, "calls-post_v1_embeddings", Request_body=body)
        assert await shown.violations() == []
        await page.reload()
        await page.locator(".btn.authorize").click()
        await expect(dialog.get_by_role("textbox")).to_have_count(2)  # nothing is kept
        assert [told for told in shown.complaints if "Security" in told] == []


async def test_an_answer_is_stopped(browser: Browser, gateway: Gateway, state: Any) -> None:
    async with window(browser, gateway.url, storage_state=state) as shown:
        await shown.go("/portal/playground?model=held")
        await shown.page.fill("#question", "Hello")
        await shown.page.click("[data-send]")
        await expect(shown.page.locator(".theirs .bubble-words")).not_to_be_empty()
        await shown.page.click("[data-stop]")
        await expect(shown.page.locator(".wrong")).to_have_text("Stopped.")
        await expect(shown.page.locator("[data-send]")).to_be_enabled()
    (record,) = await gateway.ledger(1, user="ann", model="held")
    assert record["outcome"] == "client_gone"


async def test_the_live_page_follows(browser: Browser, gateway: Gateway, state: Any) -> None:
    secret = (await gateway.create_key("aino", "live")).secret
    async with window(browser, gateway.url, storage_state=state) as shown:
        await shown.go("/portal/operators/live")
        begun = shown.page.locator("[aria-labelledby=open] tbody tr").first
        await expect(shown.page.locator("[data-still]")).to_be_hidden()
        async with await gateway.connect() as program:
            asked = chat("held", "a secret question", stream=True)
            await program.send(Request("POST", "/v1/chat/completions", secret, json=asked))
            await expect(begun).to_contain_text("aino")
            await expect(begun).to_contain_text("Streams")
            assert "a secret question" not in await shown.page.content()
        ended = shown.page.locator("[aria-labelledby=ended] tbody tr").first
        await expect(ended).to_contain_text("Broken off by the program", timeout=10_000)
        await expect(begun).to_have_count(0)
        assert await shown.violations() == []
        assert shown.complaints == []


# What a chart holds, what its table says, what the pointer is told, and which colours are really to be seen.
CHART = """() => {
    const canvas = document.querySelector("canvas"), chart = Chart.getChart(canvas), tip = chart.tooltip;
    const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d");
    copy.drawImage(canvas, 0, 0);
    const pixels = new Uint32Array(copy.getImageData(0, 0, canvas.width, canvas.height).data.buffer);
    const { tHead: head, tBodies: [body] } = document.querySelector(".as-table table");
    const read = (row, n) => Number(row.cells[n].textContent.replaceAll(",", ""));
    return {
        label: canvas.getAttribute("aria-label"), days: chart.data.labels.length, seen: [...new Set(pixels)],
        series: chart.data.datasets.map((one) => [one.label, one.data.filter(Boolean)]),
        table: [...head.rows[0].cells].slice(1, -1).map((cell) => [cell.textContent,
            [...body.rows].map((row) => read(row, cell.cellIndex)).filter(Boolean).reverse()]),
        told: tip.opacity ? [...tip.body.map((one) => one.lines[0]), ...tip.footer] : [],
    };
}"""
DRAWN = "Chart.getChart(document.querySelector('canvas'))"
LIGHT, DARK = {0xFF6B7A0B, 0xFFD46F3B}, {0xFFABC04F, 0xFFF2A47D}  # two colours, as they lie in memory
SHIFTS = """new Promise(done => { let sum = 0;
    new PerformanceObserver(list => { for (const one of list.getEntries()) sum += one.value; })
        .observe({type: "layout-shift", buffered: true});
    setTimeout(() => done(sum), 300); })"""


@pytest.mark.parametrize("path", ["/portal/sign-in", "/portal"])
async def test_a_first_page_is_light_and_does_not_jump(
    browser: Browser, gateway: Gateway, state: Any, path: str
) -> None:
    """All that a browser loads of us at first, and Chromium's own measure of what moves."""
    options = {} if path.endswith("sign-in") else {"storage_state": state}
    sizes: dict[str, int] = {}
    async with window(browser, gateway.url, **options) as shown:
        page = shown.page
        page.on("response", lambda one: sizes.update({one.url: int(one.headers.get("content-length", "0"))}))
        await shown.go(path)
        await page.wait_for_load_state("networkidle")
        assert len(sizes) >= 3
        library = sum(size for url, size in sizes.items() if "/chart.umd." in url)
        assert bool(library) == (path == "/portal") == bool(await page.locator("canvas").count())
        assert 5_000 < sum(sizes.values()) - library < 50_000
        assert sum(sizes.values()) < 150_000
        assert await page.evaluate(SHIFTS) < 0.01


async def test_s_csp_02_a_chart_draws_what_its_table_says(
    browser: Browser, gateway: Gateway, state: Any
) -> None:
    """In the colours of the moment; of names that are markup; with no complaint of the pages' policy."""
    secret = (await gateway.create_key("aino", "chart")).secret
    asked = Request("POST", "/v1/chat/completions", secret, json=chat(ODD_MODEL))
    assert (await gateway.ask(asked)).status == 200
    await gateway.ledger(1, user="aino", model=ODD_MODEL)
    path = "/portal/operators/usage?by=model"
    async with window(browser, gateway.url, storage_state=state, color_scheme="light") as shown:
        await shown.go(path)
        canvas, table = shown.page.locator("canvas"), shown.page.locator(".as-table table")
        drawn = await shown.page.evaluate(CHART)
        assert drawn["series"] == drawn["table"]
        assert {"qwen3-32b", ODD_MODEL} <= {name for name, _ in drawn["series"]}
        assert (drawn["label"], drawn["days"], drawn["told"]) == ("Tokens by day and model", 30, [])
        assert set(drawn["seen"]) >= LIGHT
        await expect(table).to_be_hidden()
        size = await canvas.bounding_box()
        assert size is not None
        await canvas.hover(position={"x": size["width"] - 10, "y": 100})
        await eventually_answers(lambda: shown.page.evaluate(f"{DRAWN}.tooltip.opacity"), "what is told")
        said = (await shown.page.evaluate(CHART))["told"]
        assert {f"{name}: {values[-1]:,}" for name, values in drawn["series"]} <= set(said)
        assert said[-1] == f"All: {sum(values[-1] for _, values in drawn['series']):,}"
        await shown.page.emulate_media(color_scheme="dark")
        first = f"{DRAWN}.data.datasets[0].backgroundColor == '#4fc0ab'"
        await eventually_answers(lambda: shown.page.evaluate(first), "other colours")
        again = await shown.page.evaluate(CHART)
        assert (again["series"], LIGHT & set(again["seen"])) == (drawn["series"], set())
        assert set(again["seen"]) >= DARK
        assert await canvas.count() == 1
        assert shown.complaints == []


@pytest.mark.parametrize("options", [{}, NO_SCRIPTS], ids=["library-lost", "no-scripts"])
async def test_where_no_chart_is_drawn_its_table_is_open(
    browser: Browser, gateway: Gateway, state: Any, options: dict[str, Any]
) -> None:
    async with window(browser, gateway.url, storage_state=state, **options) as shown:
        await shown.page.route("**/chart.umd.*", lambda route: route.abort())
        await shown.go("/portal/usage")
        await expect(shown.page.locator(".as-table table")).to_be_visible()
        await expect(shown.page.locator(".plot")).to_be_hidden()
        assert await shown.page.locator("canvas").count() == 0
        assert shown.complaints == []


async def test_copying_a_snippet(browser: Browser, gateway: Gateway, state: Any) -> None:
    options = {"storage_state": state, "permissions": ["clipboard-read", "clipboard-write"]}
    async with window(browser, gateway.url, **options) as shown:
        await shown.go("/portal/models/qwen3-32b")
        await shown.page.locator("[data-copy]").nth(1).click()
        await expect(shown.page.locator("[data-copy]").nth(1)).to_have_text("Copied")
        copied = await shown.page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith("from openai import OpenAI")
    assert f'base_url="{gateway.url}/v1"' in copied
