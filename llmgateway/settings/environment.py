"""The environment and the command line, looked up by the names that are declared."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmgateway.domain.fields import BROKEN, attempt, suggestion
from llmgateway.domain.scalars import Filled, Wrong
from llmgateway.settings.declared import BY_NAME, SETTINGS, Setting
from llmgateway.settings.value_files import value_in

OURS = "LLMGATEWAY_"
# Kubernetes tells every pod where the services of its namespace are. One that is called `llmgateway`, or
# `llmgateway-redis`, would otherwise look like a misspelt setting, or set our port to "tcp://10.0.0.1:80".
SERVICE_LINK = re.compile(
    r"LLMGATEWAY_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)"
)
SERVICE_PORT = re.compile(r"LLMGATEWAY_(\w+_)?PORT")
SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://.*")


def of_this_process() -> Mapping[str, str]:
    return dict(os.environ)  # noqa: TID251  the one place that reads it


class Environment:
    """The command line goes before the environment; empty is unset; what is wrong goes to `complaints`."""

    def __init__(
        self, environ: Mapping[str, str], overrides: Mapping[str, str], complaints: list[str]
    ) -> None:
        own = {name: value for name, value in environ.items() if not is_service_link(name, value)}
        self._sources = (stripped(overrides), stripped(own))
        self._empty = {name for name, value in (*overrides.items(), *own.items()) if not value.strip()}
        self._complaints = complaints
        self._complain_of_unknown(overrides)

    def take(self, setting: Setting) -> Any:
        default = setting.absent if setting.default is None else setting.read(setting.default)
        value = self._written(setting)
        if value is None:
            return default
        return attempt(setting.read, value, default, setting.name, self._complaints)

    def is_given(self, name: str) -> bool:
        return any(way in source for source in self._sources for way in (name, f"{name}_FILE"))

    def is_only_empty(self, name: str) -> bool:
        return not self.is_given(name) and not self._empty.isdisjoint((name, f"{name}_FILE"))

    def _written(self, setting: Setting) -> object:
        for source in self._sources:
            plain = source.get(setting.name)
            file = source.get(f"{setting.name}_FILE") if setting.is_secret else None
            if plain is not None and file is not None:
                self._complaints.append(f"{setting.name}: is given as {setting.name}_FILE too; give one")
                return BROKEN
            if file is not None:
                return attempt(_in_file, file, BROKEN, f"{setting.name}_FILE", self._complaints)
            if plain is not None:
                return Filled(plain) if setting.is_secret else plain
        return None

    def _complain_of_unknown(self, overrides: Mapping[str, str]) -> None:
        secret_files = {f"{setting.name}_FILE" for setting in SETTINGS if setting.is_secret}
        known = {*BY_NAME, *secret_files}
        given = {name for name in self._sources[1] if name.startswith(OURS)} | set(overrides)
        for name in sorted(given - known):
            if name.removesuffix("_FILE") in BY_NAME:
                self._complaints.append(f"{name}: only a secret may be given as a file")
            else:
                meant = suggestion(name, sorted(known), prefix=OURS)
                self._complaints.append(f"{name}: is no setting{meant}")


def stripped(source: Mapping[str, str]) -> dict[str, str]:
    """Without what is unset; a line end that came with a value is not part of it."""
    return {name: value.strip() for name, value in source.items() if value.strip()}


def is_service_link(name: str, value: str) -> bool:
    if name not in BY_NAME and SERVICE_LINK.fullmatch(name):
        return True
    return SERVICE_PORT.fullmatch(name) is not None and SERVICE_ADDRESS.fullmatch(value) is not None


def _in_file(written: object) -> Filled:
    if not isinstance(written, str):
        raise Wrong("must be a path")
    return value_in(Path(written).expanduser())
