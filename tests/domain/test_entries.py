from decimal import Decimal
from typing import Any

import msgspec
import pytest

from llmgateway.domain.call import Tokens
from llmgateway.domain.catalog import Deadlines, Model, Target
from llmgateway.domain.entries import BadEntry, Defaults, entry_of, parse_limits, parse_model
from llmgateway.domain.limits import Limits
from llmgateway.domain.pricing import FREE, cost_of

DEFAULTS = Defaults()
URL = "http://10.0.0.7:8000/v1"
WHOLE: dict[str, Any] = {
    "id": "qwen3-32b",
    "aliases": ["default", "org/qwen"],
    "context": 32768,
    "max_output": "8192",
    "max_choices": 4,
    "max_in_flight": 64,
    "on_hangup": "drain",
    "data_class": "private",
    "deadlines": {"first_byte": 30},
    "owned_by": "team",
    "tokenizer": "http://10.0.0.9/count",
    "price": {"input": "0.20", "cached_input": 0.05, "output": Decimal("0.80"), "request": 0},
    "targets": [
        {
            "provider": "openai",
            "url": URL + "/",
            "model": "Qwen3-32B",
            "credential": "sk-canary",
            "continuous_usage": True,
        },
        {"url": "https://b.example/v1", "tokenizer": "none"},
        {"provider": "echo"},
    ],
}


def complaints_of(entry: object, defaults: Defaults = DEFAULTS) -> list[str]:
    with pytest.raises(BadEntry) as caught:
        parse_model(entry, "models[2]", defaults)
    return caught.value.complaints


def minimal(**more: object) -> dict[str, object]:
    return {"id": "m", "targets": [{"url": URL}], **more}


def test_the_smallest_entry() -> None:
    target = Target(url=URL, model="m", tokenizer="http://10.0.0.7:8000/extras/tokenize/count")
    assert parse_model(minimal(), "", DEFAULTS) == Model(id="m", targets=(target,))


def test_a_whole_entry() -> None:
    model = parse_model(WHOLE, "", Defaults(deadlines=Deadlines(idle=9), source="admin"))
    assert model.id == "qwen3-32b"
    assert model.aliases == ("default", "org/qwen")
    assert (model.context, model.max_output, model.max_choices, model.max_in_flight) == (32768, 8192, 4, 64)
    assert (model.on_hangup, model.data_class, model.owned_by, model.source) == (
        "drain",
        "private",
        "team",
        "admin",
    )
    assert model.deadlines == Deadlines(idle=9, first_byte=30)
    assert model.targets == (
        Target(
            url=URL,
            model="Qwen3-32B",
            credential="sk-canary",
            tokenizer="http://10.0.0.9/count",
            continuous_usage=True,
        ),
        Target(url="https://b.example/v1", model="qwen3-32b"),
        Target(provider="echo", url="", model="qwen3-32b", tokenizer="http://10.0.0.9/count"),
    )


def test_prices_are_exact_however_they_are_written() -> None:
    prices = [
        parse_model(minimal(price={"input": figure, "output": "0.3"}), "", DEFAULTS).price
        for figure in ("0.1", 0.1, Decimal("0.10"), "1e-1")
    ]
    assert {(price.input, price.output, price.cached_input) for price in prices} == {(100_000, 300_000, None)}
    assert len({price.id for price in prices}) == 1
    assert len(prices[0].id) == 12
    assert cost_of(Tokens(prompt=10_000_000, completion=1), prices[0]) == 1_000_000


def test_a_price_id_follows_the_figures_and_the_currency() -> None:
    def price_id(currency: str, **price: str) -> str:
        return parse_model(minimal(price=price), "", Defaults(currency=currency)).price.id

    ids = [
        price_id("EUR", input="1"),
        price_id("USD", input="1"),
        price_id("EUR", output="1"),
        price_id("EUR", input="1", cached_input="0"),
        price_id("EUR", request="1"),
    ]
    assert len(set(ids)) == 5
    assert parse_model(minimal(price={"input": 0, "output": "0.00"}), "", DEFAULTS).price is FREE
    assert parse_model(minimal(price=None), "", DEFAULTS).price is FREE


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("id", "a/../b", "models[2].id: must have no empty"),
        ("id", None, "models[2].id: is missing"),
        ("targets", None, "models[2].targets: must list at least one place"),
        ("targets", [], "models[2].targets: must list at least one place"),
        ("targets", {}, "models[2].targets: must be a list, not a mapping"),
        ("targets", ["x"], "models[2].targets[0]: must be a mapping"),
        ("targets", [{}], "models[2].targets[0].url: is missing"),
        ("targets", [{"url": "ftp://x"}], "models[2].targets[0].url: must begin with http:// or https://"),
        (
            "targets",
            [{"url": "http://u:canary@x"}],
            "models[2].targets[0].url: must hold no user name or password",
        ),
        (
            "targets",
            [{"url": URL, "provider": "opnai"}],
            "models[2].targets[0].provider: must be openai or echo, not 'opnai'",
        ),
        (
            "targets",
            [{"url": URL, "provider": "echo"}],
            "models[2].targets[0].url: must be left out: the provider echo",
        ),
        ("targets", [{"url": URL, "credential": "***"}], "models[2].targets[0].credential: is the mask"),
        (
            "targets",
            [{"url": URL, "continuous_usage": "yes"}],
            "models[2].targets[0].continuous_usage: must be true or false",
        ),
        (
            "targets",
            [{"url": URL, "modle": "x"}],
            "models[2].targets[0].modle: is unknown; did you mean 'model'?",
        ),
        ("aliases", ["a b"], "models[2].aliases[0]: must be printable ASCII"),
        ("aliases", "default", "models[2].aliases: must be a list, not 'default'"),
        ("context", True, "models[2].context: must be a number, not true"),
        ("context", 0, "models[2].context: must be a whole number from 1"),
        ("max_output", 2.5, "models[2].max_output: must be a whole number"),
        ("max_in_flight", "many", "models[2].max_in_flight: must be a number, not 'many'"),
        ("on_hangup", "stop", "models[2].on_hangup: must be cancel or drain, not 'stop'"),
        ("data_class", False, "models[2].data_class: must be text, not false"),
        ("price", {"input": -1}, "models[2].price.input: must be an amount from 0 to"),
        ("price", {"input": "0.0000001"}, "models[2].price.input: must have at most six decimals"),
        ("price", {"inputs": 1}, "models[2].price.inputs: is unknown; did you mean 'input'?"),
        ("price", 5, "models[2].price: must be a mapping"),
        ("deadlines", {"total": 0}, "models[2].deadlines.total: must be more than 0"),
        (
            "deadlines",
            {"frist_byte": 1},
            "models[2].deadlines.frist_byte: is unknown; did you mean 'first_byte'?",
        ),
        ("tokenizer", "somewhere", "models[2].tokenizer: must begin with http:// or https://"),
        ("colour", "red", "models[2].colour: is unknown"),
    ],
)
def test_every_wrong_field_is_named(field: str, value: object, complaint: str) -> None:
    complaints = complaints_of(minimal() | {field: value})
    assert len(complaints) == 1
    assert complaints[0].startswith(complaint)
    assert "canary" not in complaints[0]


def test_all_complaints_come_at_once() -> None:
    assert len(complaints_of({"id": "", "targets": [{"url": "x"}, {}], "context": "x", "foo": 1})) == 5
    assert complaints_of("m") == ["models[2]: must be a mapping of names to values, not 'm'"]


def test_more_output_than_context_is_refused() -> None:
    assert complaints_of(minimal(context=10, max_output=11)) == [
        "models[2].max_output: must not be more than context (10)"
    ]


def test_an_entry_comes_back_as_it_was() -> None:
    model = parse_model(WHOLE, "", DEFAULTS)
    assert parse_model(entry_of(model, masked=False), "", DEFAULTS) == model
    as_json = msgspec.json.decode(msgspec.json.encode(entry_of(model, masked=False)))
    assert parse_model(as_json, "", DEFAULTS) == model
    plain = parse_model(minimal(), "", DEFAULTS)
    assert parse_model(entry_of(plain), "", DEFAULTS) == plain


def test_a_shown_entry_holds_no_credential() -> None:
    entry = entry_of(parse_model(WHOLE, "", DEFAULTS))
    assert entry["targets"][0]["credential"] == "***"
    assert "canary" not in repr(entry)
    assert "credential" not in entry["targets"][1]
    assert entry["price"] == {"input": 0.2, "cached_input": 0.05, "output": 0.8, "request": 0}


def test_limits() -> None:
    assert parse_limits(
        {"tokens_per_day": "5", "cost_per_month": 0, "requests_per_minute": None}, "limits"
    ) == Limits(tokens_per_day=5, cost_per_month=0)
    with pytest.raises(BadEntry) as caught:
        parse_limits({"tokens_per_days": 1, "tokens_per_minute": -1, "concurrent_requests": True}, "limits")
    assert caught.value.complaints == [
        "limits.tokens_per_minute: must be a whole number from 0 to 9007199254740991, not -1",
        "limits.concurrent_requests: must be a number, not true",
        "limits.tokens_per_days: is unknown; did you mean 'tokens_per_day'?",
    ]
