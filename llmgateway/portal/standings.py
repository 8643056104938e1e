"""How limits stand, for pages to show."""

from collections.abc import Sequence

from llmgateway.domain.errors import Unavailable
from llmgateway.domain.keys import Key
from llmgateway.domain.limits import Scope, Standing
from llmgateway.domain.people import User
from llmgateway.portal.visit import Desk

Standings = Sequence[Standing] | None
"""None where nobody can tell now: all else is still worth to be shown."""


async def of_person(desk: Desk, user: User, keys: Sequence[Key]) -> Standings:
    """Everything that limits what somebody can call: their own limits, their project's, those of their keys,
    and those that all share at a model."""
    models = [model.id for model in desk.visible_to(user)]
    return await standings_of(desk, await desk.control.limits.scopes_of(user, keys, models))


async def standings_of(desk: Desk, scopes: Sequence[Scope]) -> Standings:
    try:
        return await desk.standings(scopes)
    except Unavailable:
        return None
