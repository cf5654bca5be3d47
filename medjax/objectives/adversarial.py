"""Adversarial learning: a model and a critic that tells its images from true ones (Goodfellow et al., 2014)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from medjax.measures.losses import masked_mean
from medjax.objectives._players import counting, initial, per_sample, sown_losses, trained, used, weighted
from medjax.types import (
    Array,
    Example,
    Key,
    Mean,
    Model,
    NetworkInput,
    Params,
    Prediction,
    Task,
    UserError,
    Variables,
    check_choice,
)

softplus = jax.nn.softplus

# name -> (critic's loss from its logits on true and made images, model's loss from the logits on what it made)
GAMES: dict[str, tuple[Callable[[Array, Array], Array], Callable[[Array], Array]]] = {
    "nonsaturating": (lambda true, made: softplus(-true) + softplus(made), lambda made: softplus(-made)),
    "least_squares": (lambda true, made: jnp.square(true - 1) + jnp.square(made), lambda made: jnp.square(made - 1)),
    "wgan_gp": (lambda true, made: made - true, lambda made: -made),
}


@dataclass(frozen=True)
class Adversarial:
    """`loss` as in supervised learning, plus `weight` times the adversarial one.

    `game` is "nonsaturating", "least_squares" (Mao et al., 2017) or "wgan_gp" (Gulrajani et al., 2017, with its
    second-order gradient, weighed by `penalty`). The critic moves `critic_steps` times for each step of the model; with
    more than one, every move has samples of its own. With `conditional` it sees the model's input too, on the target's
    grid (pix2pix, Isola et al., 2017).
    """

    task: Task
    model: Model
    critic: Model
    loss: str = "l1"
    game: str = "nonsaturating"
    weight: float = 0.01
    penalty: float = 10.0
    critic_steps: int = 1
    conditional: bool = False

    networks: ClassVar[Mapping[str, str]] = {"model": "unet", "critic": "patch"}
    predictors = ("model",)

    def __post_init__(self) -> None:
        check_choice("config.objective.game", self.game, GAMES)
        if self.game == "wgan_gp" and getattr(self.critic, "norm", "none") == "batch":
            raise UserError("config.critic.norm", "batch norm ties samples together, which WGAN-GP's penalty per sample "
                            "forbids; use instance, layer or none")

    @property
    def players(self) -> tuple[str, ...]:
        """The critic's moves, then the model's."""
        return ("critic",) * self.critic_steps + ("model",)

    @property
    def batches(self) -> int:
        """One for each move, where the critic has several."""
        return len(self.players) if self.critic_steps > 1 else 1

    def init(self, key: Key, example: Example) -> tuple[dict[str, Params], dict[str, Variables]]:
        """Parameters and other variables of both players."""
        model = initial(self.model, key, example.input.image, example.input.context)
        critic = initial(self.critic, jax.random.fold_in(key, 1), self._seen(example.target, example))
        return {"model": model[0], "critic": critic[0]}, {"model": model[1], "critic": critic[1]}

    def losses(self, params: dict[str, Params], player: str, variables: dict[str, Variables], example: Example,
               key: Key) -> tuple[dict[str, Mean], dict[str, Variables]]:
        """The terms of the player's loss; the variables after this pass."""
        made, model_variables, sown = trained(self.model, params["model"], variables["model"], example.input.image,
                                              example.input.context, key=key)
        critic_loss, model_loss = GAMES[self.game]
        counts = counting(example.mask) > 0
        if player == "model":
            terms = weighted(self.offered(made, example) | sown_losses(sown, example.mask), self.loss)
            logits, _ = self._criticised(params, variables, made, example, key)
            terms["adversarial"] = masked_mean(per_sample(model_loss(logits)), counts).times(self.weight)
            return terms, variables | {"model": model_variables}
        made = jax.lax.stop_gradient(made)
        logits_true, critic = self._criticised(params, variables, example.target, example, key)
        logits_made, critic = self._criticised(params, variables | {"critic": critic}, made, example, key)
        terms = {"game": masked_mean(per_sample(critic_loss(logits_true, logits_made)), counts)}
        if self.game == "wgan_gp":
            slopes = self._slopes(params, variables, made, example, key)
            terms["penalty"] = masked_mean(jnp.square(slopes - 1), counts).times(self.penalty)
        return terms, variables | {"critic": critic}

    def offered(self, made: Array, example: Example) -> dict[str, Mean]:
        """What `loss` may name."""
        return self.task.losses(made, example)

    def predict(self, params: dict[str, Params], variables: dict[str, Variables], given: NetworkInput,
                keys: Key) -> Prediction:
        """The model's output in use."""
        return used(self.model, params["model"], variables["model"], given)

    def _seen(self, image: Array, example: Example) -> Array:
        """What the critic is shown of an image: 0 where nothing counts."""
        images = [image, self.task.on_target_grid(example.input.image)] if self.conditional else [image]
        return jnp.where(example.mask, jnp.concatenate(images, -1), 0)

    def _criticised(self, params: dict[str, Params], variables: dict[str, Variables], image: Array, example: Example,
                    key: Key) -> tuple[Array, Variables]:
        logits, changed, _ = trained(self.critic, params["critic"], variables["critic"], self._seen(image, example), key=key)
        return logits, changed

    def _slopes(self, params: dict[str, Params], variables: dict[str, Variables], made: Array, example: Example,
                key: Key) -> Array:
        """The critic's slope `(B,)` on images between the true and the made ones."""
        along = jax.random.uniform(key, (made.shape[0],) + (1,) * (made.ndim - 1))
        between = along * example.target + (1 - along) * made

        def total(image: Array) -> Array:
            logits, _ = self._criticised(params, variables, image, example, key)
            return per_sample(logits).sum()

        return jnp.sqrt(jnp.square(jax.grad(total)(between)).sum(tuple(range(1, made.ndim))) + 1e-12)
