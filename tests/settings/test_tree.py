import re
from ipaddress import ip_network
from pathlib import Path

import msgspec
import pytest

from llmgateway.domain.catalog import Deadlines, Model, Target
from llmgateway.domain.limits import Limits
from llmgateway.domain.secret import Secret
from llmgateway.settings.bad_settings import BadSettings
from llmgateway.settings.declared import SETTINGS
from llmgateway.settings.gateway_file import GatewayFile, read_file
from llmgateway.settings.tree import Settings, is_loopback

CONFIG = Path(__file__).parents[2] / "config"
KEY = "canary-" + "k" * 32
SECRETS = {"ADMIN_KEY": KEY, "LLMGATEWAY_SECRET_KEYS": f"{KEY}1,{KEY}2", "LLMGATEWAY_KEY_PEPPER": KEY}
STORES = {"REDIS_URL": "redis://:canary@h/1", "MONGO_URL": "mongodb://u:canary@h/ledger"}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def complaints_of(environ: dict[str, str], config: Path | None = None, **overrides: str) -> list[str]:
    with pytest.raises(BadSettings) as caught:
        Settings.load(environ, config=config, overrides=overrides)
    assert "canary" not in str(caught.value)
    return caught.value.complaints


def yaml(text: str) -> Path:
    path = Path("own.yaml")
    path.write_text(text)
    return path


def test_nothing_given_is_a_laptop(tmp_path: Path) -> None:
    settings = Settings.load({})
    assert settings == Settings(
        default_url=None,
        default_models=(),
        inference_key=None,
        admin_key=None,
        secret_keys=(),
        key_pepper=None,
        redis_url=None,
        mongo_url=None,
        workers=1,
        data_dir=Path("data"),
        config=None,
        public_url="http://127.0.0.1:8080",
        host="127.0.0.1",
        port=8080,
        trusted_proxies=(),
        log_level="info",
        log_format=None,
        rate_limit=None,
        metrics="open",
        openai_api_key=None,
        anthropic_api_key=None,
        aws_access_key_id=None,
        aws_secret_access_key=None,
        aws_session_token=None,
        aws_region=None,
        ollama_url=None,
        otel_endpoint=None,
        file=GatewayFile(),
    )
    assert not settings.is_production
    assert (settings.currency, settings.time_zone, settings.keepalive, settings.drain) == (
        "EUR",
        "UTC",
        15,
        600,
    )
    assert (settings.drain_pause, settings.max_body, settings.deadlines) == (10, 10 << 20, Deadlines())
    assert settings.stores == GatewayFile().stores
    assert settings.mongo_database is None
    assert (
        Settings.load({setting.name: "" for setting in SETTINGS if setting.name != "ADMIN_KEY"}) == settings
    )
    assert list(tmp_path.iterdir()) == []


def test_everything_given() -> None:
    settings = Settings.load(
        {
            **SECRETS,
            **STORES,
            "LLM_DEFAULT_URL": "http://models/",
            "LLM_MODELS": "a, org/b",
            "INFERENCE_KEY": "canary-i",
            "WEB_CONCURRENCY": "8",
            "LLMGATEWAY_DATA_DIR": "/x",
            "LLMGATEWAY_PUBLIC_URL": "https://llm.example/",
            "LLMGATEWAY_HOST": "0.0.0.0",
            "LLMGATEWAY_PORT": "9000",
            "LLMGATEWAY_TRUSTED_PROXIES": "10.0.0.0/8,::1",
            "LLMGATEWAY_LOG_LEVEL": "DEBUG",
            "LLMGATEWAY_LOG_FORMAT": "json",
            "RATE_LIMIT": "60",
            "LLMGATEWAY_METRICS": "off",
            "OPENAI_API_KEY": "canary-o",
            "ANTHROPIC_API_KEY": "canary-a",
            "AWS_ACCESS_KEY_ID": "canary-1",
            "AWS_SECRET_ACCESS_KEY": "canary-2",
            "AWS_SESSION_TOKEN": "canary-3",
            "AWS_REGION": "eu-north-1",
            "OLLAMA_URL": "http://localhost:11434",
            "HOME": "/root",
        }
    )
    assert settings.is_production
    assert settings.secret_keys == (Secret(f"{KEY}1"), Secret(f"{KEY}2"))
    assert settings.mongo_database == "ledger"
    assert settings.trusted_proxies == (ip_network("10.0.0.0/8"), ip_network("::1/128"))
    assert (settings.workers, settings.port, settings.public_url) == (8, 9000, "https://llm.example")
    assert (settings.log_level, settings.log_format, settings.metrics) == ("debug", "json", "off")
    assert settings.openai_api_key == Secret("canary-o")
    assert settings.limits.default == Limits(requests_per_minute=60)
    assert settings.models == tuple(
        Model(
            id=name,
            targets=(
                Target(
                    url=f"http://models/{part}/v1",
                    model=name,
                    credential="canary-i",
                    tokenizer=f"http://models/{part}/extras/tokenize/count",
                ),
            ),
        )
        for name, part in (("a", "a"), ("org/b", "org%2Fb"))
    )


def test_no_secret_is_shown() -> None:
    config = yaml("models: [{id: m, targets: [{url: 'http://h/v1', credential: canary}]}]")
    settings = Settings.load(
        {**SECRETS, **STORES, "INFERENCE_KEY": "canary", "LLM_DEFAULT_URL": "http://h", "LLM_MODELS": "a"},
        config=config,
    )
    masked = settings.masked()
    as_json = msgspec.json.encode(masked)
    assert "canary" not in repr(settings) + str(settings) + repr(masked) + as_json.decode()
    assert masked["settings"]["ADMIN_KEY"] == "***"
    assert masked["settings"]["LLMGATEWAY_SECRET_KEYS"] == ["***", "***"]
    assert masked["settings"]["OPENAI_API_KEY"] is None
    assert [model["id"] for model in masked["models"]] == ["a", "m"]
    assert masked["file"]["currency"] == "EUR"


def test_all_complaints_come_at_once() -> None:
    config = yaml("keepalive: no\nmodels: [{id: x}]\n")
    complaints = complaints_of(
        {
            "LLMGATEWAY_PROT": "1",
            "ADMIN_KEY": "canary",
            "LLMGATEWAY_PORT": "x",
            "LLM_MODELS": "a",
            "WEB_CONCURRENCY": "2",
            "REDIS_URL": "redis://h",
        },
        config,
    )
    assert [complaint.partition(":")[0] for complaint in complaints] == [
        "LLMGATEWAY_PROT",
        "ADMIN_KEY",
        "LLMGATEWAY_PORT",
        "MONGO_URL",
        "WEB_CONCURRENCY",
        "LLM_DEFAULT_URL",
        "keepalive",
        "models[0].targets",
    ]


@pytest.mark.parametrize(
    ("environ", "complaints"),
    [
        ({"REDIS_URL": "redis://h"}, ["MONGO_URL: is missing; REDIS_URL is given"]),
        ({"MONGO_URL": "mongodb://h"}, ["REDIS_URL: is missing; MONGO_URL is given"]),
        ({"WEB_CONCURRENCY": "2"}, ["WEB_CONCURRENCY: must be 1 without REDIS_URL and MONGO_URL, not 2"]),
        ({"LLM_MODELS": "a"}, ["LLM_DEFAULT_URL: is missing; LLM_MODELS names"]),
        ({"ADMIN_KEY": ""}, ["ADMIN_KEY: is empty"]),
        ({"ADMIN_KEY": "short"}, ["ADMIN_KEY: must have at least 32"]),
        (
            STORES,
            [
                "ADMIN_KEY: is required with",
                "LLMGATEWAY_SECRET_KEYS: is required with",
                "LLMGATEWAY_KEY_PEPPER: is required with",
            ],
        ),
        (STORES | SECRETS | {"ADMIN_KEY": " "}, ["ADMIN_KEY: is required with"]),
        (STORES | SECRETS | {"LLMGATEWAY_SECRET_KEYS": ""}, ["LLMGATEWAY_SECRET_KEYS: is required with"]),
        ({"LLMGATEWAY_CONFIG": "absent.yaml"}, ["absent.yaml: cannot be read: No such file"]),
        ({"LLMGATEWAY_DATA_DIR": "/dev/null"}, ["LLMGATEWAY_DATA_DIR: /dev/null is not a directory"]),
    ],
)
def test_what_does_not_go_together(environ: dict[str, str], complaints: list[str]) -> None:
    found = complaints_of(environ)
    assert len(found) == len(complaints)
    assert all(one.startswith(other) for one, other in zip(found, complaints, strict=True))


def test_a_default_url_without_models_is_fine() -> None:
    assert Settings.load({"LLM_DEFAULT_URL": "http://h"}).models == ()


def test_a_name_leads_to_one_model() -> None:
    config = yaml("models: [{id: b, aliases: [a], targets: [{url: 'http://h/v1'}]}]")
    assert complaints_of({"LLM_MODELS": "a,c", "LLM_DEFAULT_URL": "http://h"}, config) == [
        "own.yaml: the name 'a' is taken already, by LLM_MODELS"
    ]


def test_a_file_that_was_read_anew_takes_the_place_of_the_old() -> None:
    config = yaml("keepalive: 5\nmodels: [{id: b, targets: [{url: 'http://h/v1'}]}]")
    environ = {"LLM_MODELS": "a", "LLM_DEFAULT_URL": "http://h", "RATE_LIMIT": "2"}
    settings = Settings.load(environ, config=config)
    yaml("drain: 5\nmodels: [{id: c, targets: [{url: 'http://h/v1'}]}]")
    fresh = settings.with_file(read_file(config, environ))
    assert fresh == Settings.load(environ, config=config)
    assert [model.id for model in fresh.models] == ["a", "c"]
    assert (fresh.drain, fresh.keepalive, fresh.limits.default.requests_per_minute) == (5, 15, 2)
    yaml("models: [{id: a, targets: [{url: 'http://h/v1'}]}]")
    with pytest.raises(BadSettings, match="'a' is taken already, by LLM_MODELS"):
        fresh.with_file(read_file(config, environ))


def test_which_file_is_read() -> None:
    Path("config").mkdir()
    for name, keepalive in {
        "config/gateway.yaml": 1,
        "named.yaml": 2,
        "overridden.yaml": 3,
        "argument.yaml": 4,
    }.items():
        Path(name).write_text(f"keepalive: {keepalive}")
    environ = {"LLMGATEWAY_CONFIG": "named.yaml"}
    overrides = {"LLMGATEWAY_CONFIG": "overridden.yaml"}
    assert Settings.load({}).keepalive == 1
    assert Settings.load({}).config == Path("config/gateway.yaml")
    assert Settings.load(environ).keepalive == 2
    assert Settings.load(environ, overrides=overrides).keepalive == 3
    assert Settings.load(environ, overrides=overrides, config=Path("argument.yaml")).keepalive == 4


def test_the_command_line_the_environment_the_file_the_default() -> None:
    config = yaml("limits: {default: {requests_per_minute: 3, tokens_per_day: 9}}")

    def limit(config: Path | None, environ: dict[str, str], overrides: dict[str, str]) -> int | None:
        settings = Settings.load(environ, config=config, overrides=overrides)
        return settings.limits.default.requests_per_minute

    assert limit(config, {"RATE_LIMIT": "2"}, {"RATE_LIMIT": "1"}) == 1
    assert limit(config, {"RATE_LIMIT": "2"}, {}) == 2
    assert limit(config, {}, {}) == 3
    assert limit(None, {}, {}) is None
    assert Settings.load({"RATE_LIMIT": "2"}, config=config).limits.default.tokens_per_day == 9


def test_models_take_the_deadlines_of_the_file() -> None:
    config = yaml("deadlines: {idle: 7}\nmodels: [{id: m, targets: [{url: 'http://h/v1'}]}]")
    settings = Settings.load({"LLM_DEFAULT_URL": "http://h", "LLM_MODELS": "a"}, config=config)
    assert [(model.id, model.deadlines.idle) for model in settings.models] == [("a", 7), ("m", 7)]


def test_who_may_read_metrics_by_default() -> None:
    def metrics(**environ: str) -> str:
        return Settings.load(environ).metrics

    assert metrics(LLMGATEWAY_HOST="localhost") == metrics(LLMGATEWAY_HOST="::1") == "open"
    assert metrics(LLMGATEWAY_HOST="0.0.0.0") == metrics(LLMGATEWAY_HOST="llm.internal") == "admin"
    assert metrics(**STORES, **SECRETS) == "admin"
    behind_a_proxy = {"LLMGATEWAY_HOST": "127.0.0.1", "LLMGATEWAY_PUBLIC_URL": "https://llm.example.org"}
    assert metrics(**behind_a_proxy) == "admin"
    assert metrics(LLMGATEWAY_HOST="0.0.0.0", LLMGATEWAY_METRICS="open") == "open"
    assert not is_loopback("10.0.0.1")


def test_who_may_sign_in_by_default() -> None:
    production = {**SECRETS, **STORES}
    for environ, file, sign_in, sign_up in (
        ({}, "", True, True),
        ({}, "sign_in: {sign_up: false}", True, False),
        ({}, "sign_in: {local: false}", False, False),
        (production, "", False, False),
        (production, "sign_in: {local: true}", True, False),
        (production, "sign_in: {local: true, sign_up: true}", True, True),
    ):
        settings = Settings.load(environ, config=yaml(file))
        assert (settings.local_sign_in, settings.local_sign_up) == (sign_in, sign_up)


@pytest.mark.parametrize(
    ("environ", "is_private"),
    [
        ({}, True),
        ({"LLMGATEWAY_HOST": "localhost"}, True),
        ({"LLMGATEWAY_HOST": "0.0.0.0"}, False),
        ({"LLMGATEWAY_PUBLIC_URL": "https://llm.example.org"}, False),
        ({**SECRETS, **STORES}, False),
    ],
)
def test_whether_others_can_reach_it(environ: dict[str, str], is_private: bool) -> None:
    assert Settings.load(environ).is_private is is_private


def test_the_public_url_follows_the_port_and_workers_the_stores() -> None:
    assert Settings.load({"LLMGATEWAY_PORT": "9000"}).public_url == "http://127.0.0.1:9000"
    assert Settings.load(STORES | SECRETS).workers is None
    assert Settings.load({"WEB_CONCURRENCY": "1"}).workers == 1


def test_the_examples_work_together() -> None:
    listed = re.findall(
        r"^#?([A-Z][A-Z0-9_]+)=(.*)$", (CONFIG / "gateway.example.env").read_text(), re.MULTILINE
    )
    environ = dict(listed) | SECRETS | {"INFERENCE_KEY": "k"}
    environ["LLMGATEWAY_CONFIG"] = str(CONFIG.parent / environ["LLMGATEWAY_CONFIG"])
    settings = Settings.load(environ)
    assert settings.is_production
    assert [model.id for model in settings.models] == ["llama-8b", "bge-m3", "qwen3-32b"]
    assert settings.limits.users["alice"] == Limits(tokens_per_day=5_000_000)
