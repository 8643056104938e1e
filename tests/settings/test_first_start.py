import multiprocessing
from pathlib import Path

import pytest

from llmgateway.domain.secret import Secret
from llmgateway.settings.bad_settings import BadSettings
from llmgateway.settings.first_start import generate_secrets, with_secrets
from llmgateway.settings.tree import Settings

KEY = "k" * 32
PRODUCTION = {
    "REDIS_URL": "redis://h",
    "MONGO_URL": "mongodb://h",
    "ADMIN_KEY": KEY,
    "LLMGATEWAY_SECRET_KEYS": KEY,
    "LLMGATEWAY_KEY_PEPPER": KEY,
}


def settings_in(data_dir: Path, **environ: str) -> Settings:
    return Settings.load({"LLMGATEWAY_DATA_DIR": str(data_dir), **environ})


def test_secrets_are_made_once_and_kept(tmp_path: Path) -> None:
    data = tmp_path / "deep" / "data"
    settings = settings_in(data)
    assert not data.exists()
    first, second = with_secrets(settings), with_secrets(settings)
    assert first == second
    assert first.admin_key
    assert first.key_pepper
    assert len({first.admin_key, first.key_pepper, *first.secret_keys}) == 3
    assert len(first.admin_key.reveal()) == 64
    assert sorted(path.name for path in data.iterdir()) == ["admin_key", "key_pepper", "secret_keys"]
    assert {path.stat().st_mode & 0o777 for path in data.iterdir()} == {0o600}
    assert data.stat().st_mode & 0o777 == 0o700


def test_what_is_given_is_not_made(tmp_path: Path) -> None:
    settings = with_secrets(settings_in(tmp_path, ADMIN_KEY=KEY))
    assert settings.admin_key == Secret(KEY)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key_pepper", "secret_keys"]


def test_production_makes_nothing(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with_secrets(settings_in(data, **PRODUCTION))
    assert not data.exists()


def test_keys_that_were_added_by_hand_are_taken(tmp_path: Path) -> None:
    (tmp_path / "secret_keys").write_text(f"{KEY},\n{'l' * 32}\n")
    with pytest.raises(BadSettings):  # a line end within is no part of a key
        with_secrets(settings_in(tmp_path))
    (tmp_path / "secret_keys").write_text(f"{KEY}, {'l' * 32}\n")
    assert with_secrets(settings_in(tmp_path)).secret_keys == (Secret(KEY), Secret("l" * 32))


def test_broken_files_are_complained_about_together(tmp_path: Path) -> None:
    (tmp_path / "admin_key").write_text("")
    (tmp_path / "key_pepper").mkdir()
    with pytest.raises(BadSettings) as caught:
        generate_secrets(tmp_path)
    assert [
        complaint.partition(str(tmp_path))[2].partition(":")[0] for complaint in caught.value.complaints
    ] == ["/admin_key is empty", "/key_pepper"]


def test_a_kept_secret_that_is_too_short_is_named_but_not_shown(tmp_path: Path) -> None:
    (tmp_path / "admin_key").write_text("canary")
    with pytest.raises(BadSettings) as caught:
        with_secrets(settings_in(tmp_path))
    assert str(tmp_path / "admin_key") in caught.value.complaints[0]
    assert "canary" not in str(caught.value)


def test_a_directory_that_cannot_be_made_is_complained_about(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadSettings, match="LLMGATEWAY_DATA_DIR: cannot make"):
        generate_secrets(tmp_path / "file" / "data")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_processes_that_start_at_once_agree(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        found = pool.map(reveal_all, [tmp_path / str(n // 4) for n in range(40)], chunksize=1)
    for n in range(10):
        assert len({tuple(sorted(one.items())) for one in found[n * 4 : n * 4 + 4]}) == 1


def reveal_all(data_dir: Path) -> dict[str, str]:
    return {name: secret.reveal() for name, secret in generate_secrets(data_dir).items()}
