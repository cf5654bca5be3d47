"""CycleGAN: two modalities, translated there and back without paired images (Zhu et al., 2017)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from medjax.measures.losses import masked_mean
from medjax.objectives._players import counting, initial, per_sample, trained, used
from medjax.objectives.adversarial import GAMES
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
    TranslatesContrasts,
    UserError,
    Variables,
    check_choice,
)

WAYS = ("there", "back")  # source to target, target to source


@dataclass(frozen=True)
class Cycle:
    """Two generators (one player) and a critic for each modality (the other player).

    `cycle` weighs the way there and back, `identity` (as a part of it) what a generator does to its own modality.
    Critics see made images from a `buffer` of earlier ones half of the time (Shrivastava et al., 2017); 0 for none.
    Pairs are never compared: `config.task.paired=False` shuffles them away.
    """

    task: Task
    model: Model
    critic: Model
    game: str = "least_squares"
    cycle: float = 10.0
    identity: float = 0.5
    buffer: int = 32

    networks: ClassVar[Mapping[str, str]] = {"model": "unet", "critic": "patch"}
    players = ("model", "critic")
    predictors = ("model",)
    batches = 1

    def __post_init__(self) -> None:
        check_choice("config.objective.game", self.game, ("least_squares", "nonsaturating"))
        if not isinstance(self.task, TranslatesContrasts):
            raise UserError("config.objective.name", "cycle translates between two contrasts; use it with task=translate")
        if self.identity and len(self.task.source) != 1:
            raise UserError("config.objective.identity", f"{len(self.task.source)} sources and one target are not of one "
                            "kind; set it to 0 or give one source")

    def init(self, key: Key, example: Example) -> tuple[dict[str, Params], dict[str, Variables]]:
        """Parameters and other variables of both players, and the empty buffer."""
        keys = jax.random.split(key, 4)
        images = {"there": example.input.image, "back": example.target}
        made = {"there": example.target, "back": example.input.image}
        params: dict[str, Params] = {}
        variables: dict[str, Variables] = {}
        for player, first, seen in (("model", 0, images), ("critic", 2, made)):
            modules = self._generators() if player == "model" else dict.fromkeys(WAYS, self.critic)
            found = {way: initial(modules[way], keys[first + i], seen[way]) for i, way in enumerate(WAYS)}
            params[player] = {way: own for way, (own, _) in found.items()}
            variables[player] = {way: rest for way, (_, rest) in found.items()}
        if self.buffer:
            variables["buffer"] = {way: {"images": jnp.zeros((self.buffer, *made[way].shape[1:])),
                                         "filled": jnp.zeros((self.buffer,), bool)} for way in WAYS}
        return params, variables

    def losses(self, params: dict[str, Params], player: str, variables: dict[str, Variables], example: Example,
               key: Key) -> tuple[dict[str, Mean], dict[str, Variables]]:
        """The terms of the player's loss; the variables after this pass."""
        play = self._generator_losses if player == "model" else self._critic_losses
        return play(params, variables, example, key)

    def predict(self, params: dict[str, Params], variables: dict[str, Variables], given: NetworkInput,
                keys: Key) -> Prediction:
        """The source in the target's contrast."""
        return used(self.model, params["model"]["there"], variables["model"]["there"], given)

    def _generators(self) -> dict[str, Model]:
        assert isinstance(self.task, TranslatesContrasts)
        return {"there": self.model, "back": self.model.clone(channels=len(self.task.source))}  # type: ignore[attr-defined]

    def _make(self, params: dict[str, Params], variables: dict[str, Variables], way: str, image: Array,
              key: Key) -> tuple[Array, dict[str, Variables]]:
        """What a generator makes, and all variables after it."""
        made, changed, _ = trained(self._generators()[way], params["model"][way], variables["model"][way], image, key=key)
        return made, variables | {"model": variables["model"] | {way: changed}}

    def _criticised(self, params: dict[str, Params], variables: dict[str, Variables], way: str, image: Array, mask: Array,
                    key: Key) -> tuple[Array, dict[str, Variables]]:
        seen = jnp.where(mask, image, 0)  # what is padded tells nothing
        logits, changed, _ = trained(self.critic, params["critic"][way], variables["critic"][way], seen, key=key)
        return logits, variables | {"critic": variables["critic"] | {way: changed}}

    def _generator_losses(self, params: dict[str, Params], variables: dict[str, Variables], example: Example,
                          key: Key) -> tuple[dict[str, Mean], dict[str, Variables]]:
        terms: dict[str, Mean] = {}
        mask, counts = example.mask, counting(example.mask) > 0
        for way, home in (("there", example.input.image), ("back", example.target)):
            other = WAYS[1 - WAYS.index(way)]
            made, variables = self._make(params, variables, way, home, key)
            again, variables = self._make(params, variables, other, made, key)
            logits, _ = self._criticised(params, variables, way, made, mask, key)
            terms[f"adversarial_{way}"] = masked_mean(per_sample(GAMES[self.game][1](logits)), counts)
            terms[f"cycle_{way}"] = masked_mean(jnp.abs(again - home), mask).times(self.cycle)
            if self.identity:
                same, variables = self._make(params, variables, other, home, key)
                terms[f"identity_{other}"] = masked_mean(jnp.abs(same - home), mask).times(self.identity * self.cycle)
        return terms, variables

    def _critic_losses(self, params: dict[str, Params], variables: dict[str, Variables], example: Example,
                       key: Key) -> tuple[dict[str, Mean], dict[str, Variables]]:
        terms: dict[str, Mean] = {}
        mask, counts = example.mask, counting(example.mask) > 0
        for turn, (way, home, true) in enumerate((("there", example.input.image, example.target),
                                                  ("back", example.target, example.input.image))):
            made, _ = self._make(params, variables, way, home, key)
            made = jnp.where(mask, jax.lax.stop_gradient(made), 0)
            if self.buffer:
                made, replay = replayed(variables["buffer"][way], made, jax.random.fold_in(key, turn))
                variables = variables | {"buffer": variables["buffer"] | {way: replay}}
            logits_true, variables = self._criticised(params, variables, way, true, mask, key)
            logits_made, variables = self._criticised(params, variables, way, made, jnp.ones_like(mask), key)
            each = per_sample(GAMES[self.game][0](logits_true, logits_made))
            terms[f"game_{way}"] = masked_mean(each, counts).times(0.5)
        return terms, variables


def replayed(buffer: dict[str, Array], made: Array, key: Key) -> tuple[Array, dict[str, Array]]:
    """What a critic is shown for `made` `(B, *space, C)`: half of it, images made earlier; and the buffer after it.

    Each new image meets a slot of its own: an empty slot keeps it; a full one gives its image for it, or stays as it is.
    Raises UserError where the buffer holds fewer images than the batch.
    """
    images, filled = buffer["images"], buffer["filled"]
    if len(images) < len(made):
        raise UserError("config.objective.buffer", f"{len(images)} images are fewer than a batch of {len(made)}")
    slot_key, swap_key = jax.random.split(key)
    slots = jax.random.permutation(slot_key, len(images))[: len(made)]
    row = (slice(None),) + (None,) * (made.ndim - 1)
    old, full = images[slots], filled[slots]
    swap = full & jax.random.bernoulli(swap_key, 0.5, (len(made),))
    kept = jnp.where((swap | ~full)[row], made, old)
    return jnp.where(swap[row], old, made), {"images": images.at[slots].set(kept), "filled": filled.at[slots].set(True)}
