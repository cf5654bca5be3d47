"""What objectives share that train one network."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from medjax.objectives._players import initial, used
from medjax.types import Example, Key, Model, NetworkInput, Params, Prediction, Task, Variables


@dataclass(frozen=True)
class Single:
    """One player, the model; subclasses say what its loss is."""

    task: Task
    model: Model

    networks: ClassVar[Mapping[str, str]] = {"model": "unet"}
    players = ("model",)
    predictors = ("model",)
    batches = 1

    def init(self, key: Key, example: Example) -> tuple[dict[str, Params], dict[str, Variables]]:
        """Parameters and other variables of the model."""
        params, variables = initial(self.model, key, example.input.image, example.input.context)
        return {"model": params}, {"model": variables}

    def predict(self, params: dict[str, Params], variables: dict[str, Variables], given: NetworkInput,
                keys: Key) -> Prediction:
        """The model's output in use."""
        return used(self.model, params["model"], variables["model"], given)
