"""Every setting of the environment, declared once: its meaning, how it is read, and its default."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from msgspec import Struct

from llmgateway.domain.scalars import (
    Reader,
    Wrong,
    credential,
    http_url,
    listed,
    model_name,
    one_of,
    text,
    whole,
)
from llmgateway.domain.secret import Secret
from llmgateway.settings.addresses import host, mongo_url, network, redis_url

SHORTEST = 32  # characters of a secret that people do not type
T = TypeVar("T")


def long_secret(value: object) -> str:
    written = text(value)
    if len(written) < SHORTEST:
        raise Wrong(f"must have at least {SHORTEST} characters, not {len(written)}; "
                    "`openssl rand -hex 32` makes a good one")  # fmt: skip
    return written


def long_credential(value: object) -> str:
    return credential(long_secret(value))


def hidden(read: Reader[str]) -> Reader[Secret]:
    return lambda value: Secret(read(value))


def path(value: object) -> Path:
    return Path(text(value)).expanduser()


class Setting(Struct, frozen=True, kw_only=True):
    """`default` is written as in the environment; where there is none, `otherwise` says what happens, and
    `absent` is the value. A secret may also be given as a path in NAME_FILE; one that has `kept_as` is made
    at the first start of an embedded gateway and kept under that name in the data directory."""

    name: str
    field: str
    meaning: str
    read: Reader[Any]
    default: str | None = None
    otherwise: str = "none"
    absent: Any = None
    is_secret: bool = False
    kept_as: str | None = None


SETTINGS: tuple[Setting, ...] = (
    Setting(name="LLM_DEFAULT_URL", field="default_url", read=http_url,
            meaning="where model servers live: model `m` is served at `LLM_DEFAULT_URL/m/v1`"),
    Setting(name="LLM_MODELS", field="default_models", read=listed(model_name), absent=(),
            meaning="ids of the models served under it, with commas between them"),
    Setting(name="INFERENCE_KEY", field="inference_key", read=hidden(credential), is_secret=True,
            meaning="bearer credential sent to the model servers under `LLM_DEFAULT_URL`"),
    Setting(name="ADMIN_KEY", field="admin_key", read=hidden(long_credential), is_secret=True,
            kept_as="admin_key",
            otherwise="embedded: made at first start, kept as `admin_key`; production: required",
            meaning="credential of operators, at least 32 characters"),
    Setting(name="LLMGATEWAY_SECRET_KEYS", field="secret_keys", read=listed(hidden(long_secret)), absent=(),
            is_secret=True, kept_as="secret_keys",
            otherwise="embedded: made at first start, kept as `secret_keys`; production: required",
            meaning="signing keys of at least 32 characters, with commas between them: the first signs, "
                    "all verify"),
    Setting(name="LLMGATEWAY_KEY_PEPPER", field="key_pepper", read=hidden(long_secret), is_secret=True,
            kept_as="key_pepper",
            otherwise="embedded: made at first start, kept as `key_pepper`; production: required",
            meaning="pepper of the HMAC that API keys are stored as, at least 32 characters; "
                    "changing it voids all keys"),
    Setting(name="REDIS_URL", field="redis_url", read=hidden(redis_url), is_secret=True,
            otherwise="none: embedded",
            meaning="shared state of production; goes together with `MONGO_URL`"),
    Setting(name="MONGO_URL", field="mongo_url", read=hidden(mongo_url), is_secret=True,
            otherwise="none: embedded",
            meaning="records of production, `mongodb://host/database`; goes together with `REDIS_URL`"),
    Setting(name="WEB_CONCURRENCY", field="workers", read=whole(1, 512),
            otherwise="production: from the CPU limit; embedded: 1",
            meaning="worker processes; more than one needs `REDIS_URL` and `MONGO_URL`"),
    Setting(name="LLMGATEWAY_DATA_DIR", field="data_dir", read=path, default="./data",
            meaning="directory of the SQLite file, the journal and the secrets that were made"),
    Setting(name="LLMGATEWAY_CONFIG", field="config", read=path, otherwise="`config/gateway.yaml` if present",
            meaning="YAML file: models, prices, limits, deadlines"),
    Setting(name="LLMGATEWAY_PUBLIC_URL", field="public_url", read=http_url, otherwise="`http://127.0.0.1:8080`",
            meaning="the URL that users see; all absolute URLs are built from it"),
    Setting(name="LLMGATEWAY_HOST", field="host", read=host, default="127.0.0.1",
            meaning="address that `serve` listens on"),
    Setting(name="LLMGATEWAY_PORT", field="port", read=whole(0, 65535), default="8080",
            meaning="port that `serve` listens on; 0 takes a free one"),
    Setting(name="LLMGATEWAY_TRUSTED_PROXIES", field="trusted_proxies", read=listed(network), absent=(),
            meaning="addresses and ranges whose X-Forwarded-* headers count, with commas between them"),
    Setting(name="LLMGATEWAY_LOG_LEVEL", field="log_level", default="info",
            read=one_of(("debug", "info", "warning", "error", "critical")),
            meaning="least severe messages logged: `debug`, `info`, `warning`, `error`, `critical`"),
    Setting(name="LLMGATEWAY_LOG_FORMAT", field="log_format", read=one_of(("console", "json")),
            otherwise="`console` on a terminal, `json` elsewhere", meaning="`console` or `json`"),
    Setting(name="RATE_LIMIT", field="rate_limit", read=whole(1, 10**9),
            meaning="default requests per minute and user; goes before the YAML file's"),
    Setting(name="LLMGATEWAY_METRICS", field="metrics", read=one_of(("open", "admin", "off")),
            otherwise="`open` when embedded on loopback, by its own address and by `LLMGATEWAY_PUBLIC_URL`, "
                      "else `admin`",
            meaning="who may read `/metrics`: `open`, `admin` (needs `ADMIN_KEY`) or `off`"),
    Setting(name="OTEL_EXPORTER_OTLP_ENDPOINT", field="otel_endpoint", read=http_url,
            meaning="OpenTelemetry collector (OTLP over HTTP) for traces and GenAI metrics; needs "
                    "`llmgateway[otel]`"),
    Setting(name="OPENAI_API_KEY", field="openai_api_key", read=hidden(credential), is_secret=True,
            meaning="vendor credential, used where a YAML entry names it"),
    Setting(name="ANTHROPIC_API_KEY", field="anthropic_api_key", read=hidden(credential), is_secret=True,
            meaning="vendor credential, used where a YAML entry names it"),
    Setting(name="AWS_ACCESS_KEY_ID", field="aws_access_key_id", read=hidden(credential), is_secret=True,
            meaning="vendor credential for Bedrock"),
    Setting(name="AWS_SECRET_ACCESS_KEY", field="aws_secret_access_key", read=hidden(credential),
            is_secret=True, meaning="vendor credential for Bedrock"),
    Setting(name="AWS_SESSION_TOKEN", field="aws_session_token", read=hidden(credential), is_secret=True,
            meaning="vendor credential for Bedrock, of a temporary login"),
    Setting(name="AWS_REGION", field="aws_region", read=text, meaning="region of Bedrock"),
    Setting(name="OLLAMA_URL", field="ollama_url", read=http_url, meaning="address of an Ollama server"),
)  # fmt: skip

BY_NAME: Mapping[str, Setting] = MappingProxyType({setting.name: setting for setting in SETTINGS})


def settings_table() -> str:
    """All settings as a Markdown table."""
    lines = ["| name | meaning | default |", "|---|---|---|"]
    for setting in SETTINGS:
        default = setting.otherwise if setting.default is None else f"`{setting.default}`"
        also = f", `{setting.name}_FILE`" if setting.is_secret else ""
        lines.append(f"| `{setting.name}`{also} | {setting.meaning} | {default} |")
    return "\n".join(lines) + "\n"
