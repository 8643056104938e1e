"""Who is let in: those who ask for no more than there is, while there is room."""

from typing import Any

import pytest

from llmgateway.domain.errors import InvalidRequest, Overloaded, ShuttingDown
from llmgateway.flow.admit import Admit
from tests.flow.stage import chat, model

BOUNDED = model(max_output=10, max_choices=2, max_in_flight=1)


@pytest.mark.parametrize(("more", "param"), [({"choices": 3}, "n"), ({"max_output": 11}, "max_tokens")])
def test_asking_for_too_much(more: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        Admit(1)(chat(**more), BOUNDED)
    assert refused.value.param == param


def test_asking_for_what_there_is() -> None:
    Admit(1)(chat(choices=2, max_output=10), BOUNDED)
    Admit(1)(chat(choices=16, max_output=10**9), model())


async def test_a_place_is_given_back_however_it_is_left() -> None:
    admit = Admit(10)
    permit = admit(chat(), BOUNDED)
    await permit.__aenter__()
    assert admit.in_flight == 1
    await permit.__aexit__(RuntimeError, RuntimeError(), None)
    assert admit.in_flight == 0
    async with admit(chat(), BOUNDED):
        pass


async def test_a_full_model_and_a_full_gateway() -> None:
    admit = Admit(2)
    async with admit(chat(), BOUNDED):
        with pytest.raises(Overloaded) as refused:
            await admit(chat(), BOUNDED).__aenter__()
        assert refused.value.retry_after
        other = model(id="other")
        async with admit(chat(), other):
            with pytest.raises(Overloaded):
                await admit(chat(), other).__aenter__()
    assert admit.in_flight == 0


async def test_nothing_new_while_draining() -> None:
    admit = Admit(2)
    async with admit(chat(), model()):
        admit.is_open = False
        with pytest.raises(ShuttingDown):
            await admit(chat(), model()).__aenter__()
    assert admit.in_flight == 0
