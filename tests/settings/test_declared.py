import re
from pathlib import Path

from llmgateway.settings.declared import BY_NAME, SETTINGS, settings_table
from llmgateway.settings.tree import Settings

CONFIG = Path(__file__).parents[2] / "config"


def test_the_example_lists_every_variable_in_order() -> None:
    listed = re.findall(r"^#?([A-Z][A-Z0-9_]+)=", (CONFIG / "gateway.example.env").read_text(), re.MULTILINE)
    assert listed == [setting.name for setting in SETTINGS]


def test_the_example_holds_no_secret_that_somebody_could_leave_in() -> None:
    for line in (CONFIG / "gateway.example.env").read_text().splitlines():
        name, _, value = line.lstrip("#").partition("=")
        if name in BY_NAME and BY_NAME[name].is_secret and name not in ("REDIS_URL", "MONGO_URL"):
            assert value == ""


def test_every_setting_is_declared_once_and_has_a_field() -> None:
    assert len({setting.field for setting in SETTINGS}) == len(BY_NAME) == len(SETTINGS)
    assert {setting.field for setting in SETTINGS} < set(Settings.__struct_fields__)
    assert all(setting.default is None or setting.read(setting.default) is not None for setting in SETTINGS)


def test_the_table_names_every_setting() -> None:
    lines = settings_table().splitlines()
    assert len(lines) == len(SETTINGS) + 2
    assert all(line.count("|") == 4 for line in lines)
    assert "| `LLMGATEWAY_PORT` | port that `serve` listens on; 0 takes a free one | `8080` |" in lines
    assert any(line.startswith("| `ADMIN_KEY`, `ADMIN_KEY_FILE` |") for line in lines)
