"""Metadata that changes, is away, and comes back."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from llmgateway.domain.saml import IdentityProvider, Saml
from llmgateway.portal.saml import ServiceProvider
from llmgateway.portal.saml_guard import Refused
from llmgateway.portal.saml_idps import AGAIN, Idps
from tests.doubles import SetClock
from tests.lab.identity import TestIdp, new_pair

OURS, ONE, TWO = (new_pair(name) for name in ("sp", "one", "two"))
PROVIDERS = (IdentityProvider(id="one", name="One", metadata="one.xml"),
             IdentityProvider(id="two", name="Two", metadata="two.xml"))  # fmt: skip


class Place:
    """Where metadata lies."""

    def __init__(self) -> None:
        self.documents: dict[str, bytes] = {}
        self.looks = 0

    async def fetch(self, place: str) -> bytes:
        self.looks += 1
        if place not in self.documents:
            raise Refused(f"cannot read {place}")
        return self.documents[place]


@pytest.fixture
def clock() -> SetClock:
    return SetClock(datetime.now(UTC))


@pytest.fixture
def place() -> Place:
    found = Place()
    found.documents = {"one.xml": TestIdp(ONE, entity_id="urn:one").metadata(),
                       "two.xml": TestIdp(TWO, entity_id="urn:two").metadata()}  # fmt: skip
    return found


@pytest.fixture
def idps(place: Place, clock: SetClock) -> Idps:
    sp = ServiceProvider(Saml(pairs=(OURS,), providers=PROVIDERS), "https://gateway.example.org")
    return Idps(sp, PROVIDERS, place.fetch, clock)


async def test_providers_stand_in_the_order_of_the_configuration(idps: Idps) -> None:
    assert idps.all() == []
    await idps.look()
    assert [idp.provider.name for idp in idps.all()] == ["One", "Two"]
    two = idps.issuing("urn:two")
    assert two is not None
    assert two.provider.id == "two"
    assert idps.issuing("urn:three") is None
    assert idps.missing == []


async def test_ends_of_certificates_are_told_of_who_is_known(
    idps: Idps, place: Place, clock: SetClock
) -> None:
    soon = clock.at.replace(microsecond=0) + timedelta(days=3)
    pair = new_pair("soon", until=soon)
    place.documents["one.xml"] = TestIdp(pair, entity_id="urn:one").metadata()
    assert dict(idps.ends()) == {}
    await idps.look()
    ends = dict(idps.ends())
    assert set(ends) == {"provider-one", "provider-two"}
    assert ends["provider-one"] == soon.timestamp() < ends["provider-two"]


async def test_what_was_known_stays_while_it_cannot_be_read(
    idps: Idps, place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    await idps.look()
    known = idps.named("one")
    place.documents["one.xml"] = b"<broken"
    for _ in range(3):
        await idps.look()
    assert idps.named("one") is known
    assert idps.missing == ["one"]
    assert len([line for line in caplog.records if "not usable" in line.message]) == 1
    place.documents["one.xml"] = TestIdp(TWO, entity_id="urn:one").metadata()
    await idps.look()
    assert idps.missing == []
    assert idps.named("one") is not known


async def test_s_saml_21_metadata_counts_no_longer_than_it_says(
    idps: Idps, place: Place, clock: SetClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Who keeps us from reading the next one keeps no old certificate alive."""
    soon = clock.now() + timedelta(hours=2)
    place.documents["one.xml"] = TestIdp(ONE, entity_id="urn:one").metadata(until=soon)
    await idps.look()
    assert idps.named("one") is not None
    clock.pass_seconds(7201)
    assert idps.named("one") is None
    assert [idp.provider.id for idp in idps.all()] == ["two"]
    await idps.look()
    assert idps.missing == ["one"]
    assert [line for line in caplog.records if "not usable" in line.message]
    place.documents["one.xml"] = TestIdp(ONE, entity_id="urn:one").metadata(until=soon + timedelta(hours=9))
    await idps.look()
    assert idps.missing == []
    assert idps.named("one") is not None


async def test_one_that_was_never_read_is_no_choice(idps: Idps, place: Place) -> None:
    del place.documents["two.xml"]
    await idps.look()
    assert [idp.provider.id for idp in idps.all()] == ["one"]


async def test_a_hurried_look_comes_seldom(idps: Idps, place: Place, clock: SetClock) -> None:
    """A stranger's signatures must not make us read metadata again and again."""
    await idps.look()
    known, looks = idps.named("one"), place.looks
    assert known is not None
    assert await idps.changed(known) is None
    assert place.looks == looks
    clock.seconds += AGAIN
    assert await idps.changed(known) is None
    assert place.looks == looks + 2
    place.documents["one.xml"] = TestIdp(ONE, TWO, entity_id="urn:one").metadata()
    clock.seconds += AGAIN
    changed = await idps.changed(known)
    assert changed is not None
    assert changed is idps.named("one")


async def test_many_that_meet_a_new_signature_at_once_all_get_what_the_first_sees(
    idps: Idps, place: Place, clock: SetClock
) -> None:
    await idps.look()
    known, looks = idps.named("one"), place.looks
    assert known is not None
    place.documents["one.xml"] = TestIdp(TWO, entity_id="urn:one").metadata()
    clock.seconds += AGAIN
    changed = await asyncio.gather(*(idps.changed(known) for _ in range(20)))
    assert {id(one) for one in changed} == {id(idps.named("one"))}
    assert idps.named("one") is not known
    assert place.looks == looks + 2


async def test_it_keeps_looking(idps: Idps) -> None:
    task = asyncio.ensure_future(idps.keep_looking())
    async with asyncio.timeout(5):
        while not idps.all():
            await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
