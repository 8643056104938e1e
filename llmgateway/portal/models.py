"""The models that somebody may use: price, context, state, and how to call them."""

from typing import Literal

from msgspec import Struct

from llmgateway.domain.catalog import Model
from llmgateway.domain.errors import NotFound
from llmgateway.domain.people import User
from llmgateway.portal.visit import Answer, Desk, Page, Visit
from llmgateway.portal.words import later

Condition = Literal["up", "partly", "down"]


class Offer(Struct, frozen=True):
    """A model, and how its replicas are as this process has found them."""

    model: Model
    condition: Condition


async def show(desk: Desk, visit: Visit) -> Answer:
    wanted = visit.asked("q").lower()
    models = desk.visible_to(visit.me)
    found = [model for model in models if wanted in " ".join((model.id, *model.aliases)).lower()]
    found.sort(key=lambda model: model.id.lower())
    offers = [Offer(model, condition_of(desk, model)) for model in found]
    return Page("models.html", {"offers": offers, "wanted": visit.asked("q"), "count": len(models)})


async def show_one(desk: Desk, visit: Visit) -> Answer:
    wanted = visit.request.path_params["id"]
    for model in desk.visible_to(visit.me):
        if model.id == wanted:
            return Page("model.html", {"model": model, "condition": condition_of(desk, model)})
    raise NotFound(later("There is no such model, or you may not use it."))


def for_trying(desk: Desk, user: User) -> list[Model]:
    """Those that answer come first."""
    return sorted(desk.visible_to(user), key=lambda model: condition_of(desk, model) == "down")


def condition_of(desk: Desk, model: Model) -> Condition:
    seen = desk.replicas()
    up = [target.url not in seen or seen[target.url].is_up for target in model.targets]
    return "up" if all(up) else "partly" if any(up) else "down"
