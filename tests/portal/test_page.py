"""What every page has around it: headers, nothing of another's, links for who may follow them."""

import re

import pytest

from llmgateway.control.people import UserChanges
from llmgateway.portal.page import POLICY, TEMPLATES, Link
from llmgateway.portal.routes import PLACES
from tests.control.desk import ANN, Desk
from tests.portal.house import Browser, Portal, browsing

SHOWN = [place.path for place in PLACES if place.get and "{" not in place.path]


@pytest.mark.parametrize("path", [*SHOWN, "/portal/models/qwen3-32b", "/portal/nothing", "/portal/keys/x"])
async def test_s_csp_01_headers_of_every_page(alice: Browser, path: str) -> None:
    answer = await alice.get(path)
    assert answer.headers["content-security-policy"] == POLICY
    assert "unsafe" not in POLICY
    assert {part.split()[0] for part in POLICY.split("; ")} == {
        "default-src", "script-src", "style-src", "img-src", "connect-src", "base-uri", "frame-ancestors",
        "form-action",
    }  # fmt: skip
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "same-origin"
    assert "strict-transport-security" not in answer.headers


async def test_s_csp_01_behind_tls_pages_ask_for_it_for_ever(desk: Desk) -> None:
    async with browsing(Portal(desk, "https://llm.example.org")) as browser:
        answer = await browser.get("/portal/sign-in")
    assert answer.headers["strict-transport-security"] == "max-age=31536000"


@pytest.mark.parametrize("path", [path for path in SHOWN if not path.endswith((".csv", ".json"))])
async def test_pages_hold_no_script_no_style_and_nothing_from_elsewhere(alice: Browser, path: str) -> None:
    await alice.get(path)
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", alice.page)
    for tag in re.findall(r"<script[^>]*>", alice.page):
        assert 'src="/portal/static/' in tag
    for url in re.findall(r'(?:src|href|action)="([^"]*)"', alice.page):
        assert url.startswith(("/", "#")), url
        assert not url.startswith("//"), url


def test_templates_mark_nothing_as_safe() -> None:
    for template in TEMPLATES.glob("*.html"):
        assert not re.search(r"\|\s*safe\b|autoescape", template.read_text()), template.name


async def test_the_address_of_snippets_is_the_one_that_was_asked(desk: Desk) -> None:
    for public, shown in (("http://127.0.0.1:0", "http://localhost:9000/v1"),
                          ("https://llm.example.org", "https://llm.example.org/v1")):  # fmt: skip
        portal = Portal(desk, public)
        async with browsing(portal) as browser:
            if "127.0.0.1" in public:
                browser.client.base_url = "http://localhost:9000"
                await browser.sign_up("someone")
            else:
                await browser.sign_up("another")
            await browser.get("/portal/models/qwen3-32b")
            assert shown in browser.page


async def test_links_of_operators_are_theirs(alice: Browser, portal: Portal) -> None:
    portal.link(
        Link("people", "/portal/people", "People", "people", is_for_operators=True),
        Link("audit", "/portal/audit", "Audit", "list", is_for_operators=True),
    )
    async with browsing(portal) as browser:
        browser.client.cookies.update(alice.client.cookies)
        await browser.get("/portal")
        assert "Operators" not in browser.page
        await portal.desk.control.people.change(ANN, "alice", UserChanges(roles=["user", "admin"]))
        await browser.get("/portal")
        assert browser.page.count("Operators") == 1
        assert browser.page.index("Operators") < browser.page.index("/portal/people")
