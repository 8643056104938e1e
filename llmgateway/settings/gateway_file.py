"""The YAML file: models, prices, limits and deadlines, read whole or not at all."""

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any
from zoneinfo import ZoneInfo

from msgspec import Struct, structs

from llmgateway.domain.book import EVEN, Weights
from llmgateway.domain.catalog import Deadlines, Model
from llmgateway.domain.entries import (
    Defaults,
    complain_of_shared_names,
    entry_of,
    read_deadlines,
    read_limits,
    read_model,
)
from llmgateway.domain.fields import BROKEN, Fields, attempt, fields_of
from llmgateway.domain.limits import Limits
from llmgateway.domain.policy import Policy
from llmgateway.domain.saml import Saml
from llmgateway.domain.scalars import (
    Reader,
    Wrong,
    described,
    flag,
    model_name,
    seconds,
    seconds_or_none_at_all,
    size,
    text,
)
from llmgateway.domain.upkeep import Retention
from llmgateway.settings.addresses import Network, network
from llmgateway.settings.bad_settings import BadSettings
from llmgateway.settings.filling import Source, filled
from llmgateway.settings.keeping import WARNING, days, read_retention, retention_entry
from llmgateway.settings.policy_section import policy_entry, read_policy, read_shares, shares_entry
from llmgateway.settings.portal_section import PortalSection, portal_entry, read_portal
from llmgateway.settings.saml_section import read_saml, saml_entry
from llmgateway.settings.yaml_tree import tree_of

LARGEST = 4 * 1024 * 1024
NOBODY: Mapping[str, Limits] = MappingProxyType({})


class StoreTimeouts(Struct, frozen=True, kw_only=True):
    """Seconds per operation."""

    redis_timeout: float = 1
    mongo_timeout: float = 5


class ScopedLimits(Struct, frozen=True, kw_only=True):
    """`default` holds for every user, and their own go before it; the rest is by id."""

    default: Limits = Limits()
    users: Mapping[str, Limits] = NOBODY
    projects: Mapping[str, Limits] = NOBODY
    models: Mapping[str, Limits] = NOBODY


class SignIn(Struct, frozen=True, kw_only=True):
    """Accounts of the gateway's own; None: as an embedded gateway needs them, and production does not."""

    local: bool | None = None
    sign_up: bool | None = None


class GatewayFile(Struct, frozen=True, kw_only=True):
    """All that the file can say, with its defaults; times in seconds (of keeping, days), sizes in bytes."""

    currency: str = "EUR"
    time_zone: str = "UTC"
    deadlines: Deadlines = Deadlines()
    keepalive: float = 15
    drain: float = 600
    drain_pause: float = 10
    stores: StoreTimeouts = StoreTimeouts()
    max_body: int = 10 * 1024 * 1024
    upstream_networks: tuple[Network, ...] = ()
    models: tuple[Model, ...] = ()
    limits: ScopedLimits = ScopedLimits()
    fair_share: Weights = EVEN
    sign_in: SignIn = SignIn()
    saml: Saml | None = None
    policy: Policy = Policy()
    portal: PortalSection = PortalSection()
    retention: Retention = Retention()
    key_expiry_warning: int = WARNING


def read_file(path: Path, environ: Mapping[str, str]) -> GatewayFile:
    """Raises `BadSettings` with everything that is wrong at once."""
    complaints: list[str] = []
    tree = tree_of(_text_of(path), str(path), complaints)
    whole_tree = filled({} if tree is None else tree, "", Source(environ, path.parent), complaints)
    if not isinstance(whole_tree, dict) and whole_tree is not BROKEN:
        raise BadSettings([f"{path}: must be a mapping of names to values, not {described(whole_tree)}"])
    file = _read(fields_of(whole_tree, "", complaints), complaints)
    if complaints:
        raise BadSettings(complaints)
    return file


def file_entry(file: GatewayFile) -> dict[str, Any]:
    """The file as it would be written, all defaults spelt out and credentials masked."""
    limits = {"default": _limits_entry(file.limits.default)} | {
        scope: {name: _limits_entry(limits) for name, limits in getattr(file.limits, scope).items()}
        for scope in ("users", "projects", "models")
    }
    return structs.asdict(file) | {
        "deadlines": structs.asdict(file.deadlines),
        "stores": structs.asdict(file.stores),
        "sign_in": structs.asdict(file.sign_in),
        "saml": saml_entry(file.saml),
        "policy": policy_entry(file.policy),
        "fair_share": shares_entry(file.fair_share),
        "portal": portal_entry(file.portal),
        "retention": retention_entry(file.retention),
        "key_expiry_warning": f"{file.key_expiry_warning}d",
        "upstream_networks": [str(one) for one in file.upstream_networks],
        "models": [entry_of(model) for model in file.models],
        "limits": limits,
    }


def _text_of(path: Path) -> str:
    try:
        with path.open("rb") as opened:
            content = opened.read(LARGEST + 1)
    except OSError as error:
        raise BadSettings([f"{path}: cannot be read: {error.strerror or error}"]) from None
    if len(content) > LARGEST:
        raise BadSettings([f"{path}: is larger than {LARGEST} bytes"])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise BadSettings([f"{path} line {line}: is not UTF-8 text"]) from None


def _read(fields: Fields, complaints: list[str]) -> GatewayFile:
    currency = fields.take("currency", _currency, "EUR")
    deadlines = read_deadlines(fields.section("deadlines"), Deadlines())
    file = GatewayFile(
        currency=currency,
        time_zone=fields.take("time_zone", _time_zone, "UTC"),
        deadlines=deadlines,
        keepalive=fields.take("keepalive", seconds, 15),
        drain=fields.take("drain", seconds_or_none_at_all, 600),
        drain_pause=fields.take("drain_pause", seconds_or_none_at_all, 10),
        stores=_stores(fields.section("stores")),
        max_body=fields.take("max_body", size(1024, 2**30), 10 * 1024 * 1024),
        upstream_networks=tuple(fields.elements("upstream_networks", network)),
        models=_models(fields, Defaults(currency=currency, deadlines=deadlines), complaints),
        limits=_limits(fields.section("limits"), complaints),
        fair_share=read_shares(fields.section("fair_share"), complaints),
        sign_in=_sign_in(fields.section("sign_in")),
        saml=read_saml(fields.section("saml"), complaints) if fields.raw("saml") is not None else None,
        policy=read_policy(fields.section("policy"), complaints),
        portal=read_portal(fields.section("portal")),
        retention=read_retention(fields.section("retention")),
        key_expiry_warning=fields.take("key_expiry_warning", days, WARNING),
    )
    fields.done()
    return file


def _models(fields: Fields, defaults: Defaults, complaints: list[str]) -> tuple[Model, ...]:
    read = [(path, read_model(entry, path, defaults, complaints)) for path, entry in fields.items("models")]
    found = [(path, model) for path, model in read if model is not None]
    complain_of_shared_names(found, complaints)
    return tuple(model for _, model in found)


def _stores(fields: Fields) -> StoreTimeouts:
    stores = StoreTimeouts(
        redis_timeout=fields.take("redis_timeout", seconds, 1),
        mongo_timeout=fields.take("mongo_timeout", seconds, 5),
    )
    fields.done()
    return stores


def _sign_in(fields: Fields) -> SignIn:
    sign_in = SignIn(local=fields.take("local", flag, None), sign_up=fields.take("sign_up", flag, None))
    fields.done()
    return sign_in


def _limits(fields: Fields, complaints: list[str]) -> ScopedLimits:
    limits = ScopedLimits(
        default=read_limits(fields.section("default")),
        users=_by_name(fields.section("users"), text, complaints),
        projects=_by_name(fields.section("projects"), text, complaints),
        models=_by_name(fields.section("models"), model_name, complaints),
    )
    fields.done()
    return limits


def _by_name(fields: Fields, read_name: Reader[str], complaints: list[str]) -> dict[str, Limits]:
    found = {}
    for key, path, value in fields.each():
        name = attempt(read_name, key, None, path, complaints)
        limits = read_limits(fields_of({} if value is None else value, path, complaints))
        if name is not None:
            found[name] = limits
    return found


def _limits_entry(limits: Limits) -> dict[str, int]:
    return {name: value for name, value in structs.asdict(limits).items() if value is not None}


def _currency(value: object) -> str:
    written = text(value)
    if not re.fullmatch(r"[A-Z]{3}", written):
        raise Wrong(f"must be a code of three capitals such as EUR, not {described(value)}")
    return written


def _time_zone(value: object) -> str:
    written = text(value)
    if written == "UTC":
        return written
    try:
        ZoneInfo(written)
    except (ValueError, OSError, LookupError):
        raise Wrong(f"must be a time zone such as Europe/Helsinki, not {described(value)}") from None
    return written
