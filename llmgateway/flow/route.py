"""Step 2: a model's name becomes the model and its targets, in the order in which they should be asked."""

from collections.abc import Callable, Sequence

from llmgateway.domain.call import Ask
from llmgateway.domain.catalog import Catalog, Model, Target
from llmgateway.domain.errors import ModelNotAllowed, NoSuchModel
from llmgateway.domain.keys import Principal

Order = Callable[[Sequence[Target]], Sequence[Target]]


class Route:
    """`catalog` is replaced whole when the configuration changes. The client's word is looked up, never put
    into an address."""

    def __init__(self, catalog: Catalog, order: Order) -> None:
        self.catalog = catalog
        self._order = order

    def __call__(self, ask: Ask, principal: Principal) -> tuple[Model, Sequence[Target]]:
        model = self.find(ask.model, principal)
        targets = model.targets
        return model, targets if len(targets) == 1 else self._order(targets)

    def find(self, name: str, principal: Principal) -> Model:
        model = self.catalog.find(name)
        if model is None:
            raise NoSuchModel(name)
        if principal.models is not None and model.id not in principal.models:
            raise ModelNotAllowed(name)
        return model

    def visible(self, principal: Principal) -> list[Model]:
        """What `/v1/models` shows: exactly what a call may use."""
        return [model for model in self.catalog if principal.may_use(model.id)]
