"""The table of places: its paths, and that reading changes nothing."""

from llmgateway.portal.routes import LINKS, PLACES
from tests.portal.house import Browser, Portal
from tests.portal.test_keys import make


def test_names_and_paths_are_unique_and_links_lead_to_places() -> None:
    assert len({place.name for place in PLACES}) == len(PLACES)
    assert len({place.path for place in PLACES}) == len(PLACES)
    paths = {place.name: place.path for place in PLACES}
    assert all(paths[link.name] == link.path for link in LINKS)
    assert all("{" not in place.path and place.get for place in PLACES if place.is_destination)


async def test_s_csrf_03_no_get_changes_anything(alice: Browser, portal: Portal) -> None:
    """Every place, with what its forms would send in the address."""
    await make(alice)
    (key,) = (await portal.desk.control.keys.page({"user": "alice"}, limit=10))[0]

    async def everything() -> list[object]:
        store = portal.desk.store
        kinds = [await store.find(kind, {}, limit=100) for kind in ("keys", "users", "accounts", "audit")]
        return [*kinds, await portal.shelf.owned("sessions", "alice")]

    before = await everything()
    query = f"name=x&state=revoked&theme=dark&session={key.id}&login=alice&password=x&overlap=0&user=bob"
    for place in PLACES:
        await alice.get(f"{place.path.replace('{id}', key.id).replace('{id:path}', 'qwen3-32b')}?{query}")
    assert await everything() == before


async def test_the_root_leads_to_the_portal(browser: Browser) -> None:
    answer = await browser.get("/")
    assert (answer.status_code, answer.headers["location"]) == (307, "/portal")
