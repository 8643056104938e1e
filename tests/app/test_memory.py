import pytest

from llmgateway.app.memory import alone, open_memory
from llmgateway.settings import BadSettings, Settings


async def test_an_embedded_gateway_keeps_all_in_one_file(settings: Settings) -> None:
    async with open_memory(settings) as memory:
        assert (memory.store.name, memory.state.name) == ("sqlite", "memory")
        await memory.store.insert("users", {"id": "alice", "revision": 0})
        await memory.shelf.put("sessions", "a", b"1", 60)
    assert (settings.data_dir / "llmgateway.db").exists()


async def test_production_opens_though_nobody_answers(settings: Settings) -> None:
    production = Settings.load(
        {
            "REDIS_URL": "redis://127.0.0.1:1/0",
            "MONGO_URL": "mongodb://127.0.0.1:1/gateway",
            "ADMIN_KEY": "x" * 32,
            "LLMGATEWAY_SECRET_KEYS": "y" * 32,
            "LLMGATEWAY_KEY_PEPPER": "z" * 32,
            "LLMGATEWAY_DATA_DIR": str(settings.data_dir),
        },
        config=settings.config,
    )
    async with open_memory(production) as memory:
        assert (memory.store.name, memory.state.name) == ("mongodb", "redis")


def test_a_directory_has_one_gateway_at_a_time(settings: Settings) -> None:
    with alone(settings), pytest.raises(BadSettings, match="another gateway runs"), alone(settings):
        pass
    with alone(settings):
        pass
