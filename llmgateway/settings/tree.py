"""`Settings`: the frozen tree that the composition root reads, and how it is put together."""

from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, urlsplit

from msgspec import Struct, structs

from llmgateway.domain.catalog import Deadlines, Model, Target
from llmgateway.domain.entries import complain_of_shared_names, entry_of
from llmgateway.domain.secret import MASK, Secret
from llmgateway.settings.addresses import Network, mongo_database
from llmgateway.settings.bad_settings import BadSettings
from llmgateway.settings.declared import SETTINGS
from llmgateway.settings.environment import Environment
from llmgateway.settings.gateway_file import GatewayFile, ScopedLimits, StoreTimeouts, file_entry, read_file

DEFAULT_CONFIG = Path("config/gateway.yaml")


class Settings(Struct, frozen=True, kw_only=True):
    """`models` are those of LLM_MODELS and of the file; `limits` are the file's with RATE_LIMIT in them."""

    default_url: str | None
    default_models: tuple[str, ...]
    inference_key: Secret | None
    admin_key: Secret | None
    secret_keys: tuple[Secret, ...]
    key_pepper: Secret | None
    redis_url: Secret | None
    mongo_url: Secret | None
    workers: int | None
    data_dir: Path
    config: Path | None
    public_url: str
    host: str
    port: int
    trusted_proxies: tuple[Network, ...]
    log_level: Literal["debug", "info", "warning", "error", "critical"]
    log_format: Literal["console", "json"] | None
    rate_limit: int | None
    metrics: Literal["open", "admin", "off"]
    openai_api_key: Secret | None
    anthropic_api_key: Secret | None
    aws_access_key_id: Secret | None
    aws_secret_access_key: Secret | None
    aws_session_token: Secret | None
    aws_region: str | None
    ollama_url: str | None
    otel_endpoint: str | None
    file: GatewayFile = GatewayFile()
    models: tuple[Model, ...] = ()
    limits: ScopedLimits = ScopedLimits()

    @classmethod
    def load(
        cls,
        environ: Mapping[str, str],
        *,
        config: Path | None = None,
        overrides: Mapping[str, str] | None = None,
    ) -> "Settings":
        """Reads, and writes nothing; raises `BadSettings` with all complaints. `overrides` are those of the
        command line, by setting name; `config` goes before every other way to name the YAML file."""
        complaints: list[str] = []
        environment = Environment(environ, overrides or {}, complaints)
        values = {setting.field: environment.take(setting) for setting in SETTINGS}
        values["config"] = config_path(config or values["config"])
        complaints += _contradictions(values, environment)
        values |= _following(values)
        file = GatewayFile()
        try:
            if values["config"] is not None:
                file = read_file(values["config"], environ)
        except BadSettings as bad:
            complaints += bad.complaints
        settings = _with_file(cls(**values), file)
        if not complaints:
            complain_of_shared_names(settings.named_models(), complaints)
        if complaints:
            raise BadSettings(complaints)
        return settings

    def with_file(self, file: GatewayFile) -> "Settings":
        """The same environment with a file that was read anew; raises `BadSettings` where they disagree."""
        complaints: list[str] = []
        settings = _with_file(self, file)
        complain_of_shared_names(settings.named_models(), complaints)
        if complaints:
            raise BadSettings(complaints)
        return settings

    def named_models(self) -> Iterator[tuple[str, Model]]:
        """Each model with the name of where it is configured."""
        beginning = len(self.models) - len(self.file.models)
        yield from (("LLM_MODELS", model) for model in self.models[:beginning])
        yield from ((str(self.config), model) for model in self.file.models)

    @property
    def is_production(self) -> bool:
        return self.redis_url is not None and self.mongo_url is not None

    @property
    def mongo_database(self) -> str | None:
        return mongo_database(self.mongo_url.reveal()) if self.mongo_url else None

    @property
    def currency(self) -> str:
        return self.file.currency

    @property
    def time_zone(self) -> str:
        return self.file.time_zone

    @property
    def deadlines(self) -> Deadlines:
        return self.file.deadlines

    @property
    def keepalive(self) -> float:
        return self.file.keepalive

    @property
    def drain(self) -> float:
        return self.file.drain

    @property
    def drain_pause(self) -> float:
        return self.file.drain_pause

    @property
    def max_body(self) -> int:
        return self.file.max_body

    @property
    def stores(self) -> StoreTimeouts:
        return self.file.stores

    @property
    def is_private(self) -> bool:
        """Whether only who sits at this machine can reach the gateway."""
        here = urlsplit(self.public_url).hostname or ""
        return not self.is_production and is_loopback(self.host) and is_loopback(here)

    @property
    def local_sign_in(self) -> bool:
        local = self.file.sign_in.local
        return not self.is_production if local is None else local

    @property
    def local_sign_up(self) -> bool:
        sign_up = self.file.sign_in.sign_up
        return self.local_sign_in and (not self.is_production if sign_up is None else sign_up)

    def masked(self) -> dict[str, Any]:
        """All that is in force, as JSON, for operators to look at: no secret is in it."""
        in_force = structs.replace(self.file, limits=self.limits)
        return {
            "settings": {setting.name: _plain(getattr(self, setting.field)) for setting in SETTINGS},
            "file": file_entry(in_force),
            "models": [entry_of(model) for model in self.models],
        }


def config_path(given: Path | None) -> Path | None:
    """The file that was named, else the usual one if it is there."""
    if given is not None:
        return given
    return DEFAULT_CONFIG if DEFAULT_CONFIG.exists() else None


def _contradictions(values: Mapping[str, Any], environment: Environment) -> Iterator[str]:
    """What each setting by itself cannot know."""
    has_redis, has_mongo = environment.is_given("REDIS_URL"), environment.is_given("MONGO_URL")
    if has_redis != has_mongo:
        given, missing = ("REDIS_URL", "MONGO_URL") if has_redis else ("MONGO_URL", "REDIS_URL")
        yield f"{missing}: is missing; {given} is given: production needs both, an embedded gateway neither"
    if (values["workers"] or 1) > 1 and not (has_redis and has_mongo):
        yield f"WEB_CONCURRENCY: must be 1 without REDIS_URL and MONGO_URL, not {values['workers']}"
    if has_redis and has_mongo:
        yield from _missing_secrets(environment)
    elif environment.is_only_empty("ADMIN_KEY"):
        yield "ADMIN_KEY: is empty; give at least 32 characters, or leave it out and one is made"
    if values["default_models"] and not environment.is_given("LLM_DEFAULT_URL"):
        yield "LLM_DEFAULT_URL: is missing; LLM_MODELS names models that are served under it"
    data_dir: Path = values["data_dir"]
    if data_dir.exists() and not data_dir.is_dir():
        yield f"LLMGATEWAY_DATA_DIR: {data_dir} is not a directory"


def _missing_secrets(environment: Environment) -> Iterator[str]:
    for setting in SETTINGS:
        if setting.kept_as and not environment.is_given(setting.name):
            yield f"{setting.name}: is required with REDIS_URL and MONGO_URL; at least 32 characters"


def _following(values: Mapping[str, Any]) -> dict[str, Any]:
    """Defaults that follow from other settings."""
    is_production = values["redis_url"] is not None and values["mongo_url"] is not None
    public_url = values["public_url"] or f"http://127.0.0.1:{values['port']}"
    is_here = is_loopback(values["host"]) and is_loopback(urlsplit(public_url).hostname or "")
    is_private = is_here and not is_production
    return {
        "public_url": public_url,
        "workers": values["workers"] or (None if is_production else 1),
        "metrics": values["metrics"] or ("open" if is_private else "admin"),
    }


def _with_file(settings: Settings, file: GatewayFile) -> Settings:
    limits = file.limits
    if settings.rate_limit is not None:
        default = structs.replace(limits.default, requests_per_minute=settings.rate_limit)
        limits = structs.replace(limits, default=default)
    models = (*_models_of_environment(settings, file.deadlines), *file.models)
    return structs.replace(settings, file=file, models=models, limits=limits)


def _models_of_environment(settings: Settings, deadlines: Deadlines) -> Iterator[Model]:
    if settings.default_url is None:
        return
    for name in settings.default_models:
        place = f"{settings.default_url}/{quote(name, safe='')}"
        target = Target(
            url=f"{place}/v1",
            model=name,
            credential=settings.inference_key.reveal() if settings.inference_key else None,
            tokenizer=f"{place}/extras/tokenize/count",
        )
        yield Model(id=name, targets=(target,), deadlines=deadlines)


def is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _plain(value: object) -> object:
    if isinstance(value, Secret):
        return MASK
    if isinstance(value, tuple):
        return [_plain(element) for element in value]
    return value if value is None or isinstance(value, int | str) else str(value)
