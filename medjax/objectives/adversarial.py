"""Adversarial learning: a model and a critic that tells its images from true ones (Goodfellow et al., 2014)."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from medjax.objectives.supervised import run, split_variables, weighted
from medjax.types import Array, Example, Key, Params, UserError

softplus = jax.nn.softplus

# name -> (critic's loss from its logits on true and made images, model's loss from the logits on what it made)
GAMES = {
    "nonsaturating": (lambda true, made: softplus(-true).mean() + softplus(made).mean(),
                      lambda made: softplus(-made).mean()),
    "least_squares": (lambda true, made: jnp.square(true - 1).mean() + jnp.square(made).mean(),
                      lambda made: jnp.square(made - 1).mean()),
    "wgan_gp": (lambda true, made: made.mean() - true.mean(), lambda made: -made.mean()),
}


@dataclass(frozen=True)
class Adversarial:
    """`loss` as in supervised learning, plus `weight` times the adversarial one.

    `game` is "nonsaturating", "least_squares" (Mao et al., 2017) or "wgan_gp" (Gulrajani et al., 2017, with its
    second-order gradient, weighed by `penalty`). The critic moves `critic_steps` times for each step of the model. With
    `conditional` it sees the model's input too, on the target's grid (pix2pix, Isola et al., 2017).
    """

    task: Any
    model: Any
    critic: Any
    loss: str = "l1"
    game: str = "nonsaturating"
    weight: float = 0.01
    penalty: float = 10.0
    critic_steps: int = 1
    conditional: bool = False

    predictors = ("model",)

    def __post_init__(self):
        if self.game not in GAMES:
            raise UserError("config.objective.game", f"no {self.game!r}; there is {', '.join(GAMES)}")
        if self.game == "wgan_gp" and getattr(self.critic, "norm", "none") == "batch":
            raise UserError("config.critic.norm", "batch norm ties samples together, which WGAN-GP's penalty per sample "
                            "forbids; use instance, layer or none")

    @property
    def players(self) -> tuple[str, ...]:
        """The critic's moves, then the model's."""
        return ("critic",) * self.critic_steps + ("model",)

    def init(self, key: Key, example: Example) -> tuple[dict[str, Params], dict[str, Params]]:
        """Parameters and other variables of both players."""
        return split_variables({
            "model": self.model.init(key, example.input, example.context),
            "critic": self.critic.init(jax.random.fold_in(key, 1), self._seen(example.target, example)),
        })

    def player_loss(self, params: dict[str, Params], player: str, variables: dict[str, Params], example: Example,
                    key: Key) -> tuple[Array, tuple[dict[str, Array], dict[str, Params]]]:
        """The player's loss; what to log; the variables after this pass."""
        made, model_variables = run(self.model, params["model"], variables["model"], example.input, example.context, key=key)
        critic_loss, model_loss = GAMES[self.game]
        if player == "model":
            supervised, terms = weighted(self.losses(made, example), self.loss)
            logits, _ = self._judge(params, variables, made, example, key)
            terms["adversarial"] = self.weight * model_loss(logits)
            return supervised + terms["adversarial"], (terms, variables | {"model": model_variables})
        made = jax.lax.stop_gradient(made)
        logits_true, critic_variables = self._judge(params, variables, example.target, example, key)
        logits_made, critic_variables = self._judge(params, variables | {"critic": critic_variables}, made, example, key)
        terms = {"game": critic_loss(logits_true, logits_made)}
        if self.game == "wgan_gp":
            terms["penalty"] = self.penalty * self._gradient_penalty(params, variables, made, example, key)
        return sum(terms.values()), (terms, variables | {"critic": critic_variables})

    def losses(self, made: Array, example: Example) -> dict[str, Array]:
        """What `loss` may name."""
        return self.task.losses(made, example)

    def predict(self, params: dict[str, Params], variables: dict[str, Params], example: Example) -> Array:
        """The model's answer, as in use."""
        return self.model.apply({"params": params["model"], **variables["model"]}, example.input, example.context)

    def _seen(self, image: Array, example: Example) -> Array:
        return jnp.concatenate([image, self.task.show(example.input)], -1) if self.conditional else image

    def _judge(self, params: dict[str, Params], variables: dict[str, Params], image: Array, example: Example,
               key: Key) -> tuple[Array, Params]:
        return run(self.critic, params["critic"], variables["critic"], self._seen(image, example), key=key)

    def _gradient_penalty(self, params: dict[str, Params], variables: dict[str, Params], made: Array, example: Example,
                          key: Key) -> Array:
        """How far the critic's slope is from 1, squared, on images between the true and the made ones."""
        along = jax.random.uniform(key, (made.shape[0],) + (1,) * (made.ndim - 1))
        between = along * example.target + (1 - along) * made

        def total(image: Array) -> Array:
            logits, _ = self._judge(params, variables, image, example, key)
            return logits.reshape(logits.shape[0], -1).mean(1).sum()

        slope = jnp.sqrt(jnp.square(jax.grad(total)(between)).sum(tuple(range(1, made.ndim))) + 1e-12)
        return jnp.square(slope - 1).mean()
