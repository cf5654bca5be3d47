"""The one train step: physics, network and update in one program, for every objective."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import optax

from medjax.models.rematerialise import rematerialised
from medjax.types import Array, Batch, Example, Key, State

Optimizers = dict[str, optax.GradientTransformation]


def init_state(task: Any, objective: Any, optimizers: Optimizers, ema_decay: float, batch: Batch, key: Key) -> State:
    """A run's state before its first step."""
    example = task.example(key, batch)
    params, variables = objective.init(key, example)
    opt_state = {player: optimizers[player].init(params[player]) for player in params}
    ema = {player: params[player] for player in objective.predictors} if ema_decay else {}
    return State(jnp.zeros((), jnp.int32), params, variables, opt_state, jax.tree.map(jnp.copy, ema), key)


def make_step(task: Any, objective: Any, optimizers: Optimizers, ema_decay: float,
              augment: Callable[[Key, Batch], Batch] = lambda key, batch: batch, accumulate: int = 1,
              axis: str | None = None, remat: str = "none") -> Callable[[State, Batch], tuple[State, dict[str, Array]]]:
    """One update of every player, in turn; logs come as scalars `<player>/<name>`.

    `accumulate` parts of the batch go through one after the other, for the memory of one. `axis` names the mapped axis
    of devices under `shard_map` or `pmap`, where each sees its own samples; under `jit` there is none. `remat`: see
    `models.rematerialise`.
    """

    def step(state: State, batch: Batch) -> tuple[State, dict[str, Array]]:
        key = jax.random.fold_in(state.key, state.step)
        example_key, augment_key, play_key = jax.random.split(key, 3)
        batch = augment(augment_key, batch)
        examples = _in_parts(lambda part: task.example(example_key, part), batch, accumulate)
        params, variables, opt_state, logs = dict(state.params), state.variables, dict(state.opt_state), {}
        for turn, player in enumerate(objective.players):
            def loss_fn(own: Any, variables: Any, example: Example, player: str = player, others: Any = params,
                        turn: int = turn) -> Any:
                with rematerialised(remat):
                    return objective.player_loss(others | {player: own}, player, variables, example,
                                                 jax.random.fold_in(play_key, turn))

            loss, terms, variables, grads = _gradient(loss_fn, params[player], variables, examples, accumulate, axis)
            updates, opt_state[player] = optimizers[player].update(grads, opt_state[player], params[player])
            params = params | {player: optax.apply_updates(params[player], updates)}
            logs |= {f"{player}/{name}": value for name, value in terms.items()}
            logs |= {f"{player}/loss": loss, f"{player}/grad_norm": optax.tree.norm(grads)}
        ema = jax.tree.map(lambda old, new: old + (1 - ema_decay) * (new - old), state.ema,
                           {player: params[player] for player in state.ema})
        return replace(state, step=state.step + 1, params=params, variables=variables, opt_state=opt_state, ema=ema), logs

    return step


def _in_parts(make_example: Callable[[Batch], Example], batch: Batch, parts: int) -> Example:
    """The batch's example; with several parts, their examples stacked."""
    if parts == 1:
        return make_example(batch)
    # Rows are dealt out in turn, so that a part lies on as many devices as the batch.
    dealt = jax.tree.map(lambda a: jnp.moveaxis(a.reshape(-1, parts, *a.shape[1:]), 1, 0), batch)
    return jax.lax.map(make_example, dealt)


def _gradient(loss_fn: Callable[..., Any], params: Any, variables: Any, examples: Example, parts: int,
              axis: str | None) -> tuple[Array, dict[str, Array], Any, Any]:
    """Loss, terms, variables and gradient: means over the parts of the batch, and over the devices of `axis`."""
    if axis:
        # Seen as different on each device, parameters get each device's own gradient; without, a sum N times too large.
        params = jax.tree.map(lambda a: jax.lax.pcast(a, axis, to="varying"), params)

    def one(variables: Any, example: Example) -> tuple[Any, Any]:
        (loss, (terms, variables)), grads = jax.value_and_grad(loss_fn, has_aux=True)(params, variables, example)
        return variables, (loss, terms, grads)

    if parts == 1:
        variables, means = one(variables, examples)
    else:
        variables, stacked = jax.lax.scan(one, variables, examples)
        means = jax.tree.map(lambda a: a.mean(0), stacked)
    loss, terms, grads = means
    if axis:
        variables, loss, terms, grads = jax.lax.pmean((variables, loss, terms, grads), axis)
    return loss, terms, variables, grads


def make_predict(task: Any, objective: Any) -> Callable[[State, Batch, Key], tuple[Any, Array, dict[str, Array]]]:
    """The example, the model's answer and its metrics per sample, with the averaged weights where there are any."""

    def predict(state: State, batch: Batch, key: Key) -> tuple[Any, Array, dict[str, Array]]:
        example = task.trial(key, batch)
        pred = objective.predict(state.params | state.ema, state.variables, example)
        return example, pred, task.metrics(pred, example)

    return predict
