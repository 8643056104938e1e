"""Catalogue entries: a model, its price, and limits as people write them in YAML or JSON, and back again."""

import hashlib
from collections.abc import Iterable
from decimal import Decimal
from typing import Any, Literal, cast

from msgspec import Struct, structs

from llmgateway.domain.catalog import Deadlines, Model, OnHangup, Target
from llmgateway.domain.fields import Fields, fields_of
from llmgateway.domain.limits import Limits
from llmgateway.domain.pricing import FREE, PER_MILLION, Price, micro_units
from llmgateway.domain.scalars import (
    Wrong,
    credential,
    described,
    flag,
    http_url,
    model_name,
    number,
    one_of,
    seconds,
    text,
    whole,
)
from llmgateway.domain.secret import MASK

PROVIDERS = ("openai", "echo")
WITHOUT_ADDRESS = frozenset({"echo"})  # they answer inside the gateway
NO_TOKENIZER = "none"
DEAREST = 1_000_000  # units of currency per million tokens, or per request
MOST_TOKENS = 1_000_000_000
MOST_COUNTED = 2**53 - 1  # the state store counts in doubles


class Defaults(Struct, frozen=True, kw_only=True):
    """What an entry leaves to its surroundings."""

    currency: str = "EUR"
    deadlines: Deadlines = Deadlines()
    providers: tuple[str, ...] = PROVIDERS
    source: Literal["settings", "admin", "built-in"] = "settings"


class BadEntry(ValueError):
    """An entry that cannot be; `complaints` names each field by its path."""

    def __init__(self, complaints: list[str]) -> None:
        super().__init__("; ".join(complaints))
        self.complaints = complaints


def parse_model(entry: object, path: str, defaults: Defaults) -> Model:
    """Raises `BadEntry` with everything that is wrong at once."""
    complaints: list[str] = []
    model = read_model(entry, path, defaults, complaints)
    if model is None:
        raise BadEntry(complaints)
    return model


def parse_limits(entry: object, path: str) -> Limits:
    """Raises `BadEntry` with everything that is wrong at once."""
    complaints: list[str] = []
    limits = read_limits(fields_of(entry, path, complaints))
    if complaints:
        raise BadEntry(complaints)
    return limits


def read_model(entry: object, path: str, defaults: Defaults, complaints: list[str]) -> Model | None:
    """None where a complaint was added."""
    before = len(complaints)
    fields = fields_of(entry, path, complaints)
    model_id = fields.need("id", model_name, "")
    model = Model(
        id=model_id,
        aliases=tuple(fields.elements("aliases", model_name)),
        targets=_targets(fields, model_id, defaults, complaints),
        context=fields.take("context", whole(1, MOST_TOKENS), None),
        max_output=fields.take("max_output", whole(1, MOST_TOKENS), None),
        max_choices=fields.take("max_choices", whole(1, 1024), 16),
        max_in_flight=fields.take("max_in_flight", whole(1, 1_000_000), None),
        max_waiting=fields.take("max_waiting", whole(0, 1_000_000), None),
        max_wait=fields.take("max_wait", seconds, 60),
        on_hangup=cast(OnHangup, fields.take("on_hangup", one_of(("cancel", "drain")), "cancel")),
        price=read_price(fields.section("price"), defaults.currency),
        data_class=fields.take("data_class", text, None),
        deadlines=read_deadlines(fields.section("deadlines"), defaults.deadlines),
        owned_by=fields.take("owned_by", text, "llmgateway"),
        source=defaults.source,
    )
    if model.context is not None and model.max_output is not None and model.max_output > model.context:
        fields.complain("max_output", f"must not be more than context ({model.context})")
    fields.done()
    return model if len(complaints) == before else None


def read_deadlines(fields: Fields, defaults: Deadlines) -> Deadlines:
    """Each one that is not given is the default's."""
    names = Deadlines.__struct_fields__
    deadlines = Deadlines(**{name: fields.take(name, seconds, getattr(defaults, name)) for name in names})
    fields.done()
    return deadlines


def read_limits(fields: Fields) -> Limits:
    count = whole(0, MOST_COUNTED)
    limits = Limits(**{name: fields.take(name, count, None) for name in Limits.__struct_fields__})
    fields.done()
    return limits


def read_price(fields: Fields, currency: str) -> Price:
    """Free where all is zero. The id is a fingerprint of the figures: one price has one id for ever."""
    cached = fields.take("cached_input", _amount, None)
    price = Price(
        input=fields.take("input", _amount, 0),
        cached_input=cached,
        output=fields.take("output", _amount, 0),
        request=fields.take("request", _amount, 0),
    )
    fields.done()
    if not (price.input or price.cached_input or price.output or price.request):
        return FREE
    figures = f"{currency} {price.input} {'-' if cached is None else cached} {price.output} {price.request}"
    return structs.replace(price, id=hashlib.sha256(figures.encode()).hexdigest()[:12])


def complain_of_shared_names(models: Iterable[tuple[str, Model]], complaints: list[str]) -> None:
    """Each model comes with its path. An id or alias leads to one model only."""
    taken: dict[str, str] = {}
    for path, model in models:
        for name in (model.id, *model.aliases):
            if name in taken:
                complaints.append(f"{path}: the name '{name}' is taken already, by {taken[name]}")
            taken.setdefault(name, path)


def entry_of(model: Model, *, masked: bool = True) -> dict[str, Any]:
    """A model as an entry again. Unmasked, reading it gives an equal model."""
    optional = {
        "context": model.context,
        "max_output": model.max_output,
        "max_in_flight": model.max_in_flight,
        "max_waiting": model.max_waiting,
        "data_class": model.data_class,
    }
    return {
        "id": model.id,
        "aliases": list(model.aliases),
        "targets": [_target_entry(target, masked=masked) for target in model.targets],
        "max_choices": model.max_choices,
        "max_wait": model.max_wait,
        "on_hangup": model.on_hangup,
        "price": _price_entry(model.price),
        "deadlines": structs.asdict(model.deadlines),
        "owned_by": model.owned_by,
        **{name: value for name, value in optional.items() if value is not None},
    }


def _targets(fields: Fields, model_id: str, defaults: Defaults, complaints: list[str]) -> tuple[Target, ...]:
    tokenizer = fields.take("tokenizer", _tokenizer, None)
    if fields.raw("targets") in (None, [], ()):
        fields.complain("targets", "must list at least one place where the model is served")
    return tuple(
        _target(fields_of(value, path, complaints), model_id, tokenizer, defaults.providers)
        for path, value in fields.items("targets")
    )


def _target(fields: Fields, model_id: str, tokenizer: str | None, providers: tuple[str, ...]) -> Target:
    provider = fields.take("provider", one_of(providers), "openai")
    if provider in WITHOUT_ADDRESS:
        url, beside = "", NO_TOKENIZER
        if fields.raw("url") not in (None, ""):
            fields.complain("url", f"must be left out: the provider {provider} answers inside the gateway")
    else:
        url = fields.need("url", http_url, "")
        beside = url.removesuffix("/v1") + "/extras/tokenize/count"
    counting = fields.take("tokenizer", _tokenizer, tokenizer) or beside
    target = Target(
        provider=provider,
        url=url,
        model=fields.take("model", text, model_id),
        credential=fields.take("credential", credential, None),
        tokenizer=None if counting == NO_TOKENIZER else counting,
        continuous_usage=fields.take("continuous_usage", flag, None),
    )
    fields.done()
    return target


def _tokenizer(value: object) -> str:
    return NO_TOKENIZER if value == NO_TOKENIZER else http_url(value)


def _amount(value: object) -> int:
    exact = number(value)
    if not 0 <= exact <= DEAREST:
        raise Wrong(f"must be an amount from 0 to {DEAREST}, not {described(value)}")
    try:
        return micro_units(exact)
    except ValueError:
        raise Wrong(f"must have at most six decimals, not {described(value)}") from None


def _target_entry(target: Target, *, masked: bool) -> dict[str, Any]:
    served = target.provider not in WITHOUT_ADDRESS
    shown_credential = MASK if masked else target.credential
    optional = {
        "url": target.url or None,
        "credential": shown_credential if target.credential else None,
        "tokenizer": target.tokenizer or (NO_TOKENIZER if served else None),
        "continuous_usage": target.continuous_usage,
    }
    entry = {"provider": target.provider, "model": target.model}
    return entry | {name: value for name, value in optional.items() if value is not None}


def _price_entry(price: Price) -> dict[str, int | float]:
    """Exact as JSON numbers: an amount has at most thirteen digits, and a double keeps fifteen."""
    figures = {
        "input": price.input,
        "cached_input": price.cached_input,
        "output": price.output,
        "request": price.request,
    }
    return {name: _units(micros) for name, micros in figures.items() if micros is not None}


def _units(micros: int) -> int | float:
    exact = Decimal(micros) / PER_MILLION
    return int(exact) if exact == exact.to_integral_value() else float(exact)
