"""The models and how their servers are; what operators added can be changed here."""

from typing import Any

import msgspec
from msgspec import Struct

from llmgateway.control.models import model_view
from llmgateway.control.replicas import ReplicaView, replica_views
from llmgateway.control.reports import UsageAsk
from llmgateway.domain.catalog import Model
from llmgateway.domain.errors import Conflict, GatewayError, InvalidRequest
from llmgateway.portal.models import Condition, condition_of
from llmgateway.portal.operators.listing import holds
from llmgateway.portal.sign_in import status_of
from llmgateway.portal.spans import lately
from llmgateway.portal.visit import Answer, Desk, Page, Redirect, Visit
from llmgateway.portal.words import later

EXAMPLE = {"id": "qwen3-32b", "targets": [{"url": "http://10.0.0.7:8000/v1"}], "context": 32768,
           "price": {"input": 0.2, "output": 0.8}}  # fmt: skip
NOT_SHOWN = ("source", "created_at")
NO_JSON = later("This is not a JSON object.")


class Served(Struct, frozen=True):
    """A model, how its replicas are, and where it comes from."""

    model: Model
    condition: Condition
    replicas: list[ReplicaView]


async def show(desk: Desk, visit: Visit) -> Answer:
    catalog = await desk.control.models.catalog()
    replicas = replica_views(catalog, desk.replicas(), desk.clock)
    report = await desk.control.reports.usage(UsageAsk(start=lately(desk).start, by="model"))
    served = [
        Served(model, condition_of(desk, model), [one for one in replicas if model.id in one.models])
        for model in sorted(catalog, key=lambda model: model.id.lower())
        if holds(visit.asked("q"), model.id, *model.aliases)
    ]
    values = {
        "served": served, "replicas": replicas, "wanted": visit.asked("q"),
        "usage": {row.group["model"]: row for row in report.rows},
    }  # fmt: skip
    return Page("operators/models.html", values)


async def show_one(desk: Desk, visit: Visit, error: GatewayError | None = None) -> Answer:
    model = await desk.control.models.get(visit.request.path_params["id"])
    catalog = await desk.control.models.catalog()
    replicas = replica_views(catalog, desk.replicas(), desk.clock)
    values = {
        "model": model, "condition": condition_of(desk, model), "error": error,
        "replicas": [one for one in replicas if model.id in one.models],
        "entry": visit.form.raw("entry") or _written(model_view(model)),
    }  # fmt: skip
    return Page("operators/model.html", values, status_of(error))


async def change(desk: Desk, visit: Visit) -> Answer:
    """The fields that differ from those shown; what is left out goes back to its default."""
    model = await desk.control.models.get(visit.request.path_params["id"])
    try:
        entry, shown = _entry_in(visit), _as_read(_written(model_view(model)))
        changes = {name: value for name, value in entry.items() if shown.get(name) != value}
        left_out: dict[str, Any] = dict.fromkeys(shown.keys() - entry.keys() - {"id"})
        await desk.control.models.change(visit.actor, model.id, left_out | changes)
    except (InvalidRequest, Conflict) as error:
        return await show_one(desk, visit, error)
    return Redirect("op-model", {"id": model.id}, said="changed")


async def show_new(desk: Desk, visit: Visit, error: GatewayError | None = None) -> Answer:
    values = {"error": error, "entry": visit.form.raw("entry") or _written(EXAMPLE)}
    return Page("operators/model-new.html", values, status_of(error))


async def create(desk: Desk, visit: Visit) -> Answer:
    try:
        model = await desk.control.models.create(visit.actor, _entry_in(visit))
    except (InvalidRequest, Conflict) as error:
        return await show_new(desk, visit, error)
    return Redirect("op-model", {"id": model.id}, said="created")


async def ask_delete(desk: Desk, visit: Visit) -> Answer:
    model = await desk.control.models.get(visit.request.path_params["id"])
    return Page("operators/model-delete.html", {"model": model})


async def delete(desk: Desk, visit: Visit) -> Answer:
    await desk.control.models.delete(visit.actor, visit.request.path_params["id"])
    return Redirect("op-models", said="deleted")


async def show_config(desk: Desk, visit: Visit) -> Answer:
    """All settings in force; secrets are masked before they come here."""
    return Page("operators/config.html", {"config": _written(desk.config())})


def _entry_in(visit: Visit) -> dict[str, Any]:
    try:
        return _as_read(visit.form.raw("entry"))
    except (msgspec.DecodeError, UnicodeError):
        raise InvalidRequest(NO_JSON, param="entry") from None


def _as_read(text: str) -> dict[str, Any]:
    entry = msgspec.json.decode(text.encode(), type=dict[str, Any])
    return {name: value for name, value in entry.items() if name not in NOT_SHOWN}


def _written(value: object) -> str:
    encoded = msgspec.json.encode(value, enc_hook=str)
    return msgspec.json.format(encoded, indent=2).decode()
