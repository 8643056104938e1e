"""Which directory is meant, and what its secrets say of production's."""

from pathlib import Path

import pytest

from llmgateway.cli.commands import parser
from llmgateway.cli.options import Arguments
from llmgateway.cli.source import at_rest, directory_of, kept_in, production_of, secrets_of
from llmgateway.domain.errors import Conflict, InvalidRequest
from llmgateway.stores.sqlite import open_sqlite

STORES = ("--mongo-url", "mongodb://127.0.0.1:1/x", "--redis-url", "redis://127.0.0.1:1")
SECRET = "0123456789-0123456789-0123456789-0123456789"


def typed(*words: str) -> Arguments:
    return parser().parse_args(["migrate", *words])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Without the operators' key, which was a setting."""
    (tmp_path / "llmgateway.db").touch()
    for name in ("secret_keys", "key_pepper"):
        (tmp_path / name).write_text(f"{name}-{SECRET}\n")
    return tmp_path


def test_the_directory_that_is_named_goes_first(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert directory_of(typed("--from", str(data), "--data-dir", "/nowhere")) == data
    assert directory_of(typed("--data-dir", str(data))) == data
    monkeypatch.setenv("LLMGATEWAY_DATA_DIR", str(data))
    assert directory_of(typed()) == data
    monkeypatch.delenv("LLMGATEWAY_DATA_DIR")
    monkeypatch.chdir(data)
    with pytest.raises(InvalidRequest, match="data/llmgateway"):
        directory_of(typed())


def test_secrets_that_are_not_given_are_the_directory_s(data: Path) -> None:
    settings = production_of(typed(*STORES, "--admin-key", SECRET), data)
    assert settings.key_pepper is not None
    assert settings.key_pepper.reveal() == f"key_pepper-{SECRET}"
    assert [secret["same"] for secret in secrets_of(settings, data)] == [True, True]
    assert [setting.name for setting in kept_in(data)] == ["LLMGATEWAY_SECRET_KEYS", "LLMGATEWAY_KEY_PEPPER"]


def test_secrets_that_are_given_stay(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMGATEWAY_SECRET_KEYS", f"{SECRET},another-{SECRET}")
    settings = production_of(typed(*STORES, "--admin-key", SECRET), data)
    assert [secret["same"] for secret in secrets_of(settings, data)] == [False, True]
    other = production_of(typed(*STORES, "--admin-key", SECRET, "--key-pepper", SECRET), data)
    with pytest.raises(Conflict, match="none of the keys would work") as refused:
        secrets_of(other, data)
    assert SECRET not in str(refused.value)


async def test_at_rest(tmp_path: Path) -> None:
    async with open_sqlite(tmp_path / "llmgateway.db") as store:
        await store.insert("keys", {"id": "a", "revision": 0})
    async with at_rest(tmp_path) as source:
        assert await source.get("keys", "a") == {"id": "a", "revision": 0}
