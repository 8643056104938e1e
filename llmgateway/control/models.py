"""The catalogue's entries that operators add beside those of the configuration."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from llmgateway.control.audit import Actor
from llmgateway.control.changes import announce, each, need, no_such, revise
from llmgateway.control.ground import Ground
from llmgateway.control.moments import now_of, written
from llmgateway.domain.catalog import Catalog, Model
from llmgateway.domain.entries import BadEntry, Defaults, entry_of, parse_model
from llmgateway.domain.errors import Conflict, InvalidRequest, NoSuchModel, shown
from llmgateway.domain.ports import Change, Document, Documents

log = logging.getLogger(__name__)

MOST_MODELS = 1000
ModelEntry = dict[str, Any]
"""An entry of the YAML's `models`, as JSON."""


async def load_catalog(store: Documents, base_models: Iterable[Model], defaults: Defaults) -> Catalog:
    """The base models, then what operators added; of two with one name the first wins."""
    return Catalog([*base_models, *await added_models(store, defaults)])


async def added_models(store: Documents, defaults: Defaults) -> list[Model]:
    """One that cannot be any more, such as of a provider that is gone, is left out and complained about."""
    found = []
    async for document in each(store, "models", {}):
        try:
            found.append(_model(document, defaults))
        except BadEntry as bad:
            left_out = {"model": document["id"], "error": str(bad)}
            log.warning("a model of the catalogue is left out", extra={"fields": left_out})
    return found


def model_view(model: Model) -> dict[str, Any]:
    """The entry as JSON, credentials masked, with where it comes from."""
    return {**entry_of(model), "source": model.source, "created_at": written(model.created)}


class Models:
    """The models of the settings are shown here, and cannot be changed."""

    def __init__(self, ground: Ground) -> None:
        self._store = ground.store
        self._state = ground.state
        self._audit = ground.audit
        self._clock = ground.clock
        self._configured = ground.configured

    async def catalog(self) -> Catalog:
        """What is in the store now, which this process may not have been told yet."""
        return await load_catalog(self._store, self._configured().base_models, self._defaults())

    async def get(self, model_id: str) -> Model:
        for model in await self.catalog():
            if model.id == model_id:
                return model
        raise no_such("models", model_id)

    async def ids_of(self, names: Sequence[str]) -> tuple[str, ...]:
        """Of what somebody is restricted to; an alias is taken for its model's."""
        if not 0 < len(names) <= MOST_MODELS:
            message = f"models must name 1 to {MOST_MODELS} models; leave it out to allow all."
            raise InvalidRequest(message, param="models")
        catalog = await self.catalog()
        return tuple(dict.fromkeys(_id_in(catalog, name) for name in names))

    async def page(self, *, limit: int, after: str | None = None) -> tuple[Sequence[Model], str | None]:
        """All models by id."""
        models = sorted(await self.catalog(), key=lambda model: model.id.encode())
        rest = [model for model in models if after is None or model.id.encode() > after.encode()]
        return rest[:limit], rest[limit - 1].id if len(rest) > limit else None

    async def create(self, actor: Actor, entry: ModelEntry) -> Model:
        model = self._parsed(entry)
        async with self._audit.change(actor, "models.create", model.id) as line:
            catalog = await self.catalog()
            is_added = await self._store.get("models", model.id) is not None
            if is_added or any(one.id == model.id for one in catalog):
                raise Conflict(f"There is a model '{shown(model.id)}' already.", param="id")
            _refuse_taken_names(model, catalog)
            await line.accept(entry_of(model))
            document = {"id": model.id, "revision": 0, "created_at": now_of(self._clock), "entry": entry}
            await self._store.insert("models", document)
            await announce(self._state, [Change("models", model.id)])
        return _model(document, self._defaults())

    async def change(self, actor: Actor, model_id: str, changes: ModelEntry) -> Model:
        """Replaces the fields that `changes` names; null puts one back to its default."""
        if changes.get("id", model_id) != model_id:
            raise InvalidRequest("A model's id cannot be changed; create another model.", param="id")
        async with self._audit.change(actor, "models.change", model_id) as line:
            await self._need_added(model_id)
            catalog = await self.catalog()

            def change(document: Document) -> Document:
                merged = {**document["entry"], **changes}
                entry = {name: value for name, value in merged.items() if value is not None}
                _refuse_taken_names(self._parsed(entry), catalog)
                return {"entry": entry}

            planned = change(await need(self._store, "models", model_id))
            in_words = entry_of(self._parsed(planned["entry"]))
            details = {name: in_words.get(name) for name in changes}
            document, has_changed = await revise(self._store, "models", line, change, details)
            if has_changed:
                await announce(self._state, [Change("models", model_id)])
        return _model(document, self._defaults())

    async def delete(self, actor: Actor, model_id: str) -> None:
        async with self._audit.change(actor, "models.delete", model_id) as line:
            await self._need_added(model_id)
            await line.accept({})
            if not await self._store.delete("models", model_id):
                raise no_such("models", model_id)
            await announce(self._state, [Change("models", model_id)])

    def _defaults(self) -> Defaults:
        return msgspec.structs.replace(self._configured().defaults, source="admin")

    def _parsed(self, entry: ModelEntry) -> Model:
        try:
            return parse_model(entry, "", self._defaults())
        except BadEntry as bad:
            message = "The model's entry cannot be: " + "; ".join(bad.complaints) + "."
            raise InvalidRequest(message, param=bad.complaints[0].partition(":")[0] or None) from None

    async def _need_added(self, model_id: str) -> None:
        if await self._store.get("models", model_id) is not None:
            return
        if any(model.id == model_id for model in self._configured().base_models):
            raise Conflict(f"The model '{shown(model_id)}' comes from the settings; change it there.")
        raise no_such("models", model_id)


def _refuse_taken_names(model: Model, catalog: Catalog) -> None:
    for name in (model.id, *model.aliases):
        other = catalog.find(name)
        if other is not None and other.id != model.id:
            message = f"The name '{shown(name)}' leads to the model '{other.id}' already."
            raise Conflict(message, param="id" if name == model.id else "aliases")


def _model(document: Mapping[str, Any], defaults: Defaults) -> Model:
    model = parse_model(document["entry"], "", defaults)
    return msgspec.structs.replace(model, created=document["created_at"])


def _id_in(catalog: Catalog, name: str) -> str:
    model = catalog.find(name)
    if model is None:
        unknown = NoSuchModel(name)
        raise InvalidRequest(unknown.message, param="models", code=unknown.code)
    return model.id
