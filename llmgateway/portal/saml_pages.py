"""The addresses of SAML: what each asks of the federation, if there is one."""

from llmgateway.domain.errors import NotFound
from llmgateway.portal.visit import Answer, Desk, Download, Federation, Page, Visit
from llmgateway.portal.words import later

METADATA_TYPE = "application/samlmetadata+xml"


async def login(desk: Desk, visit: Visit) -> Answer:
    federation, asked = _of(desk), visit.asked("idp")
    choices = federation.choices()
    if asked or len(choices) == 1:
        return await federation.ask(visit, asked or choices[0].id)
    return Page("choose.html", {"choices": choices, "next": visit.asked("next")})


async def acs(desk: Desk, visit: Visit) -> Answer:
    return await _of(desk).receive(visit)


async def arrive(desk: Desk, visit: Visit) -> Answer:
    return await _of(desk).arrive(visit)


async def metadata(desk: Desk, visit: Visit) -> Answer:
    return Download(_of(desk).metadata(), METADATA_TYPE, "llmgateway-metadata.xml")


async def slo(desk: Desk, visit: Visit) -> Answer:
    return await _of(desk).go(visit)


async def sls(desk: Desk, visit: Visit) -> Answer:
    return await _of(desk).hear(visit)


def _of(desk: Desk) -> Federation:
    if desk.federation is None:
        raise NotFound(later("There is no such page."))
    return desk.federation
