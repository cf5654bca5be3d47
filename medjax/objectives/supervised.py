"""Supervised learning: one player, the weighted sum of the task's losses."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax

from medjax.types import Array, Example, Key, Params, UserError

Weights = tuple[tuple[str, float], ...]


def parse_loss(text: str) -> Weights:
    """Names and weights from "charbonnier + 0.2*ssim"."""
    weights = []
    for term in text.split("+"):
        weight, _, name = term.strip().rpartition("*")
        try:
            weights.append((name.strip(), float(weight or 1)))
        except ValueError:
            raise UserError("config.objective.loss", f"{term.strip()!r} is not NAME or WEIGHT*NAME") from None
    return tuple(weights)


def weighted(losses: Mapping[str, Array], text: str) -> tuple[Array, dict[str, Array]]:
    """The sum that `text` asks for, and its terms by name."""
    terms = {}
    for name, weight in parse_loss(text):
        if name not in losses:
            raise UserError("config.objective.loss", f"the task has no loss {name!r}; it has {', '.join(losses)}")
        terms[name] = weight * losses[name]
    return sum(terms.values()), terms


@dataclass(frozen=True)
class Supervised:
    """The model learns to make the target. `loss` is a weighted sum like "l1 + 0.2*ssim" of what the task offers, and of
    what the model itself leaves in its variables "losses" (a VAE's "kl").
    """

    task: Any
    model: Any
    loss: str = "l1"

    players = ("model",)
    predictors = ("model",)

    def init(self, key: Key, example: Example) -> tuple[dict[str, Params], dict[str, Params]]:
        """Parameters and other variables of every player."""
        return split_variables({"model": self.model.init(key, example.input, example.context)})

    def player_loss(self, params: dict[str, Params], player: str, variables: dict[str, Params], example: Example,
                    key: Key) -> tuple[Array, tuple[dict[str, Array], dict[str, Params]]]:
        """The player's loss; what to log; the variables after this pass."""
        pred, changed = run(self.model, params["model"], variables["model"], example.input, example.context, key=key)
        loss, terms = weighted(self.task.losses(pred, example) | changed.get("losses", {}), self.loss)
        return loss, (terms, variables | {"model": changed})

    def predict(self, params: dict[str, Params], variables: dict[str, Params], example: Example) -> Array:
        """The model's answer, as in use."""
        return self.model.apply({"params": params["model"], **variables["model"]}, example.input, example.context)


def split_variables(initial: dict[str, Params]) -> tuple[dict[str, Params], dict[str, Params]]:
    """What modules' `init` returns, parted into parameters and the rest."""
    params = {player: variables["params"] for player, variables in initial.items()}
    rest = {player: {k: v for k, v in variables.items() if k != "params"} for player, variables in initial.items()}
    return params, rest


def run(module: Any, params: Params, variables: Params, *args: Any, key: Key) -> tuple[Array, Params]:
    """A module's answer in training, and its other variables after it."""
    dropout, sample = jax.random.split(key)
    return module.apply({"params": params, **variables}, *args, train=True, mutable=list(variables),
                        rngs={"dropout": dropout, "sample": sample})
