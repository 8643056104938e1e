"""`make pictures`: every page of the portal as docs/pictures/portal-*.png, and their list."""

import asyncio
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from playwright.async_api import Browser

from tests.lab.browser import Window, chromium, window
from tests.lab.gateway import Gateway
from tests.pictures.demonstration import PASSWORD, demonstration, history, people, refused, streams

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
DESKTOP, PHONE = {"width": 1280, "height": 860}, {"width": 390, "height": 844}
TALLEST, MOST_BYTES, MOST_TOGETHER = 1500, 150_000, 4_000_000


class Shot(NamedTuple):
    """A page; those that are shown `everywhere` are taken dark and on a phone, too. It is there when what
    `shows` selects is."""

    name: str
    path: str
    everywhere: bool = False
    shows: str = "main"


SHOTS: Sequence[Shot] = (
    Shot("overview", "/portal", everywhere=True),
    Shot("keys", "/portal/keys", everywhere=True),
    Shot("key-new", "/portal/keys/new"),
    Shot("key", "/portal/keys/{key}"),
    Shot("key-revoke", "/portal/keys/{key}/revoke"),
    Shot("usage", "/portal/usage", everywhere=True),
    Shot("requests", "/portal/requests"),
    Shot("models", "/portal/models", everywhere=True),
    Shot("model", "/portal/models/qwen3-32b"),
    Shot("api", "/docs", everywhere=True, shows=".opblock"),
    Shot("account", "/portal/account"),
    Shot("terms", "/portal/terms"),
    Shot("error", "/portal/nothing"),
    Shot("operators-live", "/portal/operators/live", everywhere=True),
    Shot("operators-people", "/portal/operators/people", everywhere=True),
    Shot("operators-person-new", "/portal/operators/people/new"),
    Shot("operators-person", "/portal/operators/person/sofia.ahonen"),
    Shot("operators-suspend", "/portal/operators/person-state/sofia.ahonen"),
    Shot("operators-projects", "/portal/operators/projects"),
    Shot("operators-project-new", "/portal/operators/projects/new"),
    Shot("operators-project", "/portal/operators/project/thesis-lab", everywhere=True),
    Shot("operators-keys", "/portal/operators/keys"),
    Shot("operators-key", "/portal/operators/keys/{sofias}"),
    Shot("operators-models", "/portal/operators/models"),
    Shot("operators-model", "/portal/operators/model/mistral-small"),
    Shot("operators-model-new", "/portal/operators/models/new"),
    Shot("operators-limits", "/portal/operators/limits"),
    Shot("operators-limit", "/portal/operators/limits/user/sofia.ahonen"),
    Shot("operators-usage", "/portal/operators/usage?by=user", everywhere=True),
    Shot("operators-requests", "/portal/operators/requests"),
    Shot("operators-audit", "/portal/operators/audit"),
    Shot("operators-announcements", "/portal/operators/announcements"),
    Shot("operators-config", "/portal/operators/config"),
)
LOOKS: Sequence[tuple[str, dict[str, Any]]] = (
    ("", {"viewport": DESKTOP, "color_scheme": "light"}),
    ("-dark", {"viewport": DESKTOP, "color_scheme": "dark"}),
    ("-phone", {"viewport": PHONE, "color_scheme": "light"}),
    ("-phone-dark", {"viewport": PHONE, "color_scheme": "dark"}),
)


async def first_account(browser: Browser, gateway: Gateway) -> Any:
    """Its cookies. Its sign-up, its terms and its first key are pictures, too."""
    async with window(browser, gateway.url) as shown:
        page = shown.page
        await shown.go("/")
        await take(shown, "sign-up")
        await page.fill("#f-login", "ann")
        await page.fill("#f-name", "Ann Virtanen")
        await page.fill("#f-password", PASSWORD)
        await page.click("form .button")
        await take(shown, "terms-first")
        await page.click("text=I accept these terms")
        await take(shown, "overview-first")
        for name in ("thesis", "CI of the course"):
            await shown.go("/portal/keys/new")
            await page.fill("#f-name", name)
            await page.click("main form .button")
        await take(shown, "key-shown")
        return await page.context.storage_state()


async def projects(browser: Browser, gateway: Gateway, state: Any) -> None:
    async with window(browser, gateway.url, storage_state=state) as shown:
        page = shown.page
        for id, name, responsible in (
            ("thesis-lab", "Thesis laboratory", "aino.korhonen"),
            ("speech", "Speech recognition", "liisa.heikkinen"),
        ):
            await shown.go("/portal/operators/projects/new")
            await page.fill("#f-id", id)
            await page.fill("#f-name", name)
            await page.fill("#f-responsible", responsible)
            await page.fill("#f-expires", "2027-05-31")
            await page.click("main form .button")
        await shown.go("/portal/operators/project/thesis-lab")
        await page.fill("#f-key_name", "nightly evaluation")
        await page.click("text=Create the key")
        await shown.go("/portal/operators/announcements")
        await page.fill(
            "#f-text", "On Sunday from 6 to 8 the model servers get new GPUs; requests may take longer."
        )
        await page.select_option("#f-level", "warning")
        await page.click("text=Announce >> nth=-1")


async def take(shown: Window, name: str) -> None:
    """As much of the page as is worth looking at, in few colours."""
    page = shown.page
    await page.wait_for_load_state()
    size = page.viewport_size
    assert size is not None
    tall = await page.evaluate("document.documentElement.scrollHeight")
    await page.set_viewport_size({"width": size["width"], "height": max(size["height"], min(tall, TALLEST))})
    await page.evaluate("window.scrollTo(0, 0)")
    data = await page.screenshot(animations="disabled", caret="hide")
    await page.set_viewport_size(size)
    (PICTURES / f"portal-{name}.png").write_bytes(small(data))


def small(data: bytes) -> bytes:
    """In as many colours as there is room for."""
    sizes = []
    with Image.open(io.BytesIO(data)) as image:
        for colours in (128, 64, 32):
            out = io.BytesIO()
            image.convert("RGB").quantize(colours, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
            sizes.append(out.getvalue())
    return next((one for one in sizes if len(one) < MOST_BYTES), sizes[-1])


async def played(browser: Browser, gateway: Gateway, state: Any) -> None:
    """The playground with two models that answer side by side."""
    for look, options in LOOKS[:3]:
        async with window(browser, gateway.url, storage_state=state, **options) as shown:
            await shown.go("/portal/playground?model=qwen3-32b")
            if look != "-phone":
                await shown.page.check("[data-compare]")
            await shown.page.fill("#question", "Explain in one sentence what an API gateway is good for.")
            await shown.page.click("[data-send]")
            await shown.page.locator("p[data-figures]").first.filter(has_text="tokens").wait_for()
            await take(shown, f"playground{look}")


async def tried(browser: Browser, gateway: Gateway, state: Any) -> None:
    """A call in the API's reference, with its answer."""
    for look, options in LOOKS[:2]:
        async with window(browser, gateway.url, storage_state=state, **options) as shown:
            await shown.go("/docs")
            call = shown.page.locator("#operations-calls-post_v1_chat_completions")
            await call.locator(".opblock-summary-control").click()
            await call.get_by_role("button", name="Try it out").click()
            await call.get_by_role("button", name="Execute").click()
            await call.locator(".live-responses-table").wait_for()
            await take(shown, f"api-tried{look}")


async def main() -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    for old in PICTURES.glob("portal-*.png"):
        old.unlink()
    async with demonstration() as gateway, chromium() as browser:
        keys = await people(gateway)
        state = await first_account(browser, gateway)
        await projects(browser, gateway, state)
        mine = (await gateway.admin("GET", "/keys?user=ann")).json["data"]
        own = next(key["id"] for key in mine if key["name"] == "thesis")
        await history(gateway, {"ann": own, **{user: key.id for user, key in keys.items()}})
        await gateway.restart()  # what was used counts towards limits from now on
        await played(browser, gateway, state)
        await tried(browser, gateway, state)
        await refused(gateway, "ann")
        ids = {"key": own, "sofias": keys["sofia.ahonen"].id}
        async with streams(gateway, {user: key.secret for user, key in keys.items()}):
            for look, options in LOOKS:
                async with window(browser, gateway.url, storage_state=state, **options) as shown:
                    for shot in SHOTS:
                        if not look or shot.everywhere:
                            await shown.go(shot.path.format(**ids))
                            await shown.page.locator(shot.shows).first.wait_for()
                            await take(shown, f"{shot.name}{look}")
        async with window(browser, gateway.url) as shown:
            await shown.go("/portal/sign-in")
            await take(shown, "sign-in")
    sizes = {path.name: path.stat().st_size for path in PICTURES.glob("portal-*.png")}
    together, largest = sum(sizes.values()), max(sizes.values())
    print(f"{len(sizes)} pictures, {together / 1e6:.1f} MB, the largest {largest / 1e3:.0f} kB")
    assert largest < MOST_BYTES
    assert together < MOST_TOGETHER


if __name__ == "__main__":
    asyncio.run(main())
