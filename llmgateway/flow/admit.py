"""Step 3: a call is let in when it asks for no more than its model gives, and when there is room."""

from typing import Self

from llmgateway.domain.call import Ask
from llmgateway.domain.catalog import Model
from llmgateway.domain.errors import InvalidRequest, Overloaded, ShuttingDown


class Permit:
    """A place among the calls in flight; leaving the block gives it back."""

    __slots__ = ("_admit", "_model")

    def __init__(self, admit: "Admit", model: Model) -> None:
        self._admit = admit
        self._model = model

    async def __aenter__(self) -> Self:
        self._admit.enter(self._model)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._admit.leave(self._model)


class Admit:
    """Counts the calls in flight in this process. `is_open` turns false when the gateway is draining."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._by_model: dict[str, int] = {}
        self.in_flight = 0
        self.is_open = True

    def __call__(self, ask: Ask, model: Model) -> Permit:
        if ask.choices > model.max_choices:
            raise InvalidRequest(
                f"At most {model.max_choices} choices can be asked of this model at once.", param="n"
            )
        if ask.max_output is not None and model.max_output is not None and ask.max_output > model.max_output:
            raise InvalidRequest(
                f"This model gives at most {model.max_output} tokens; fewer can be asked for.",
                param="max_tokens",
            )
        return Permit(self, model)

    def enter(self, model: Model) -> None:
        if not self.is_open:
            raise ShuttingDown("The gateway is shutting down; please try again.", retry_after=1)
        if self.in_flight >= self._most:
            raise Overloaded("The gateway is busy; please try again soon.", retry_after=1)
        now = self._by_model.get(model.id, 0)
        if model.max_in_flight is not None and now >= model.max_in_flight:
            raise Overloaded(f"The model '{model.id}' is busy; please try again soon.", retry_after=1)
        self._by_model[model.id] = now + 1
        self.in_flight += 1

    def leave(self, model: Model) -> None:
        self._by_model[model.id] -= 1
        self.in_flight -= 1
