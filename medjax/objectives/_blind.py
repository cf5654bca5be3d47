"""What objectives share whose one model learns without seeing the truth."""

from dataclasses import dataclass
from typing import Any

from medjax.objectives.supervised import split_variables
from medjax.types import Array, Example, Key, Params


@dataclass(frozen=True)
class Blind:
    """One player, the model; subclasses say what its loss is."""

    task: Any
    model: Any

    players = ("model",)
    predictors = ("model",)

    def init(self, key: Key, example: Example) -> tuple[dict[str, Params], dict[str, Params]]:
        """Parameters and other variables of the model."""
        return split_variables({"model": self.model.init(key, example.input, example.context)})

    def predict(self, params: dict[str, Params], variables: dict[str, Params], example: Example) -> Array:
        """The model's answer, as in use."""
        return self.model.apply({"params": params["model"], **variables["model"]}, example.input, example.context)
