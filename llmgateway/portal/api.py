"""The API for people: its description, in a viewer that tries calls as whoever is signed in."""

from llmgateway.portal.models import for_trying
from llmgateway.portal.visit import Answer, Desk, Page, Visit


async def show(desk: Desk, visit: Visit) -> Answer:
    """For everybody: the description is no secret, and a key may be pasted."""
    models = [] if visit.user is None else for_trying(desk, visit.user)
    return Page("api.html", {"model": models[0].id if models else ""})
