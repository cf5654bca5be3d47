"""The one train step: physics, network and update in one program, for every objective."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import optax

from medjax.types import Array, Batch, Key, State

Optimizers = dict[str, optax.GradientTransformation]


def init_state(task: Any, objective: Any, optimizers: Optimizers, ema_decay: float, batch: Batch, key: Key) -> State:
    """A run's state before its first step."""
    example = task.example(key, batch)
    params, variables = objective.init(key, example)
    opt_state = {player: optimizers[player].init(params[player]) for player in params}
    ema = {player: params[player] for player in objective.predictors} if ema_decay else {}
    return State(jnp.zeros((), jnp.int32), params, variables, opt_state, jax.tree.map(jnp.copy, ema), key)


def make_step(task: Any, objective: Any, optimizers: Optimizers, ema_decay: float,
              augment: Callable[[Key, Batch], Batch] = lambda key, batch: batch,
              ) -> Callable[[State, Batch], tuple[State, dict[str, Array]]]:
    """One update of every player, in turn; logs come as scalars `<player>/<name>`."""

    def step(state: State, batch: Batch) -> tuple[State, dict[str, Array]]:
        key = jax.random.fold_in(state.key, state.step)
        example_key, augment_key, play_key = jax.random.split(key, 3)
        example = task.example(example_key, augment(augment_key, batch))
        params, variables, opt_state, logs = dict(state.params), state.variables, dict(state.opt_state), {}
        for turn, player in enumerate(objective.players):
            def loss_fn(own: Any, player: str = player, others: Any = params, variables: Any = variables,
                        turn: int = turn) -> Any:
                return objective.player_loss(others | {player: own}, player, variables, example,
                                             jax.random.fold_in(play_key, turn))

            (loss, (terms, variables)), grads = jax.value_and_grad(loss_fn, has_aux=True)(params[player])
            updates, opt_state[player] = optimizers[player].update(grads, opt_state[player], params[player])
            params = params | {player: optax.apply_updates(params[player], updates)}
            logs |= {f"{player}/{name}": value for name, value in terms.items()}
            logs |= {f"{player}/loss": loss, f"{player}/grad_norm": optax.tree.norm(grads)}
        ema = jax.tree.map(lambda old, new: old + (1 - ema_decay) * (new - old), state.ema,
                           {player: params[player] for player in state.ema})
        return replace(state, step=state.step + 1, params=params, variables=variables, opt_state=opt_state, ema=ema), logs

    return step


def make_predict(task: Any, objective: Any) -> Callable[[State, Batch, Key], tuple[Any, Array, dict[str, Array]]]:
    """The example, the model's answer and its metrics per sample, with the averaged weights where there are any."""

    def predict(state: State, batch: Batch, key: Key) -> tuple[Any, Array, dict[str, Array]]:
        example = task.trial(key, batch)
        pred = objective.predict(state.params | state.ema, state.variables, example)
        return example, pred, task.metrics(pred, example)

    return predict
