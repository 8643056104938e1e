"""The portal over real stores, with a clock that is set."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from llmgateway.portal.origin import Origins
from llmgateway.portal.sessions import Sessions
from llmgateway.stores.sqlite_shelf import SqliteShelf
from tests.control.desk import Desk, open_desk
from tests.portal.asking import KEYS
from tests.portal.house import Browser, Portal, browsing, plain_user

LOCAL = "http://127.0.0.1:8080"


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with open_desk(tmp_path) as opened:
        yield opened


@pytest.fixture
def shelf(desk: Desk) -> SqliteShelf:
    return SqliteShelf(desk.store.file, desk.clock)


@pytest.fixture
def sessions(desk: Desk, shelf: SqliteShelf) -> Sessions:
    return Sessions(shelf, desk.control.people, desk.clock, keys=KEYS[:1], origins=Origins(LOCAL))


@pytest.fixture
def portal(desk: Desk) -> Portal:
    return Portal(desk)


@pytest.fixture
async def browser(portal: Portal) -> AsyncIterator[Browser]:
    """Somebody who is not signed in."""
    async with browsing(portal) as opened:
        yield opened


@pytest.fixture
async def ann(portal: Portal, browser: Browser) -> Browser:
    """Signed in, an administrator."""
    await browser.sign_up("ann")
    return browser


@pytest.fixture
async def alice(portal: Portal, browser: Browser) -> Browser:
    """Signed in, with the role `user` alone."""
    await plain_user(portal, browser)
    return browser
