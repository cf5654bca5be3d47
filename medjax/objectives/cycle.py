"""CycleGAN: two modalities, translated there and back without paired images (Zhu et al., 2017)."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from medjax.objectives.adversarial import GAMES
from medjax.objectives.supervised import run, split_variables
from medjax.types import Array, Example, Key, Params, UserError

Variables = dict[str, Params]
WAYS = ("there", "back")  # source to target, target to source


@dataclass(frozen=True)
class Cycle:
    """Two generators (one player) and a critic for each modality (the other player).

    `cycle` weighs the way there and back, `identity` (as a part of it) what a generator does to its own modality.
    Critics judge made images from a `buffer` of earlier ones half of the time (Shrivastava et al., 2017); 0 for none.
    Pairs are never compared: `config.task.paired=False` shuffles them away.
    """

    task: Any
    model: Any
    critic: Any
    game: str = "least_squares"
    cycle: float = 10.0
    identity: float = 0.5
    buffer: int = 32

    players = ("model", "critic")
    predictors = ("model",)

    def __post_init__(self):
        if self.game not in ("least_squares", "nonsaturating"):
            raise UserError("config.objective.game", f"no {self.game!r}; there is least_squares, nonsaturating")
        if not hasattr(self.task, "source"):
            raise UserError("config.objective.name", "cycle translates between two contrasts; use it with task=translate")
        if self.identity and len(self.task.source) != 1:
            raise UserError("config.objective.identity", f"{len(self.task.source)} sources and one target are not of one "
                            "kind; set it to 0 or give one source")

    def init(self, key: Key, example: Example) -> tuple[dict[str, Params], dict[str, Params]]:
        """Parameters and other variables of both players, and the empty buffer."""
        keys = jax.random.split(key, 4)
        images = {"there": example.input, "back": example.target}
        made = {"there": example.target, "back": example.input}
        params, variables = {}, {}
        for player, first, seen in (("model", 0, images), ("critic", 2, made)):
            modules = self._generators() if player == "model" else dict.fromkeys(WAYS, self.critic)
            params[player], variables[player] = split_variables(
                {way: modules[way].init(keys[first + i], seen[way]) for i, way in enumerate(WAYS)})
        if self.buffer:
            variables["buffer"] = {way: {"images": jnp.zeros((self.buffer, *made[way].shape[1:])),
                                         "filled": jnp.zeros((self.buffer,), bool)} for way in WAYS}
        return params, variables

    def player_loss(self, params: dict[str, Params], player: str, variables: Variables, example: Example,
                    key: Key) -> tuple[Array, tuple[dict[str, Array], Variables]]:
        """The player's loss; what to log; the variables after this pass."""
        play = self._generator_loss if player == "model" else self._critic_loss
        terms, variables = play(params, variables, example, key)
        return sum(terms.values()), (terms, variables)

    def predict(self, params: dict[str, Params], variables: Variables, example: Example) -> Array:
        """The source in the target's contrast."""
        return self.model.apply({"params": params["model"]["there"], **variables["model"]["there"]}, example.input)

    def _generators(self) -> dict[str, Any]:
        return {"there": self.model, "back": self.model.clone(channels=len(self.task.source))}

    def _make(self, params: dict[str, Params], variables: Variables, way: str, image: Array,
              key: Key) -> tuple[Array, Variables]:
        """What a generator makes, and all variables after it."""
        made, changed = run(self._generators()[way], params["model"][way], variables["model"][way], image, key=key)
        return made, variables | {"model": variables["model"] | {way: changed}}

    def _judge(self, params: dict[str, Params], variables: Variables, way: str, image: Array,
               key: Key) -> tuple[Array, Variables]:
        logits, changed = run(self.critic, params["critic"][way], variables["critic"][way], image, key=key)
        return logits, variables | {"critic": variables["critic"] | {way: changed}}

    def _generator_loss(self, params: dict[str, Params], variables: Variables, example: Example,
                        key: Key) -> tuple[dict[str, Array], Variables]:
        terms: dict[str, Array] = {}
        for way, home in (("there", example.input), ("back", example.target)):
            other = WAYS[1 - WAYS.index(way)]
            made, variables = self._make(params, variables, way, home, key)
            again, variables = self._make(params, variables, other, made, key)
            logits, _ = self._judge(params, variables, way, made, key)
            terms[f"adversarial_{way}"] = GAMES[self.game][1](logits)
            terms[f"cycle_{way}"] = self.cycle * jnp.abs(again - home).mean()
            if self.identity:
                same, variables = self._make(params, variables, other, home, key)
                terms[f"identity_{other}"] = self.identity * self.cycle * jnp.abs(same - home).mean()
        return terms, variables

    def _critic_loss(self, params: dict[str, Params], variables: Variables, example: Example,
                     key: Key) -> tuple[dict[str, Array], Variables]:
        terms: dict[str, Array] = {}
        for turn, (way, home, true) in enumerate((("there", example.input, example.target),
                                                  ("back", example.target, example.input))):
            made, _ = self._make(params, variables, way, home, key)
            made = jax.lax.stop_gradient(made)
            if self.buffer:
                made, replay = replayed(variables["buffer"][way], made, jax.random.fold_in(key, turn))
                variables = variables | {"buffer": variables["buffer"] | {way: replay}}
            logits_true, variables = self._judge(params, variables, way, true, key)
            logits_made, variables = self._judge(params, variables, way, made, key)
            terms[f"game_{way}"] = 0.5 * GAMES[self.game][0](logits_true, logits_made)
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
