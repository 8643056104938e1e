"""Settings of an embedded gateway in a directory of its own."""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmgateway.settings import Settings, with_secrets


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "gateway.yaml"
    path.write_text("drain: 1\ndrain_pause: 0\n")
    return path


@pytest.fixture
def settings(tmp_path: Path, config: Path) -> Settings:
    environ = {"LLMGATEWAY_DATA_DIR": str(tmp_path / "data"), "LLMGATEWAY_LOG_LEVEL": "warning"}
    return with_secrets(Settings.load(environ, config=config))


@pytest.fixture(autouse=True)
def _collector() -> Iterator[None]:
    """The application sets the collector for its process; here it is not alone in it."""
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)
