"""How a command line is read: every setting is an option too, and goes before the environment."""

import argparse
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from llmgateway.settings import SETTINGS, Settings, of_this_process, with_secrets

OURS = "LLMGATEWAY_"

Arguments = argparse.Namespace
Run = Callable[[Arguments], Awaitable[int]]


def option_of(name: str) -> str:
    """`LLMGATEWAY_DATA_DIR` is `--data-dir`."""
    return "--" + name.removeprefix(OURS).lower().replace("_", "-")


def settings_options(*, are_told: bool) -> argparse.ArgumentParser:
    """A part of every command's parser."""
    parser = argparse.ArgumentParser(add_help=False)
    heading = ("settings", "each goes before the environment variable in brackets") if are_told else ()
    group = parser.add_argument_group(*heading)
    for setting in SETTINGS:
        meaning = f"{setting.meaning} [{setting.name}]".replace("%", "%%").replace("`", "'")
        _add(group, setting.name, "VALUE", meaning if are_told else argparse.SUPPRESS)
        if setting.is_secret:
            name = f"{setting.name}_FILE"
            _add(group, name, "PATH", f"a file that holds it [{name}]" if are_told else argparse.SUPPRESS)
    return parser


def _add(group: "argparse._ArgumentGroup", name: str, metavar: str, text: str) -> None:
    group.add_argument(option_of(name), dest=name, metavar=metavar, help=text)


def output_options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--json", action="store_true", dest="as_json", help="JSON instead of a table")
    return parser


def overrides_of(arguments: Arguments) -> Mapping[str, str]:
    given = vars(arguments)
    names = [name for setting in SETTINGS for name in (setting.name, f"{setting.name}_FILE")]
    return {name: given[name] for name in names if given.get(name) is not None}


def settings_of(arguments: Arguments) -> Settings:
    """Raises `BadSettings`. What an embedded gateway needs of secrets is made if it is not there."""
    return with_secrets(settings_with(arguments, {}))


def settings_with(arguments: Arguments, more: Mapping[str, str]) -> Settings:
    """`more` is as good as typed. Raises `BadSettings`; makes nothing."""
    overrides = {**more, **overrides_of(arguments)}
    config = overrides.pop("LLMGATEWAY_CONFIG", None)
    return Settings.load(
        of_this_process(), config=Path(config).expanduser() if config else None, overrides=overrides
    )
