"""The one train step: physics, network and update in one program, for every objective."""

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
import optax

from medjax.models.rematerialise import rematerialised
from medjax.registry import file_of
from medjax.train.privacy import Plan, patient_gradient
from medjax.types import Array, Batch, Example, Key, Mean, Objective, Prediction, State, Task, Tree, UserError, Variables

Optimizers = dict[str, optax.GradientTransformation]
Step = Callable[..., tuple[State, dict[str, Array]]]
QUICK = {"xla_backend_optimization_level": 0}
"""To XLA, of a program that runs once, as the one of the first state: optimised, it takes longer to compile than a step."""
Terms = Callable[[Tree, dict[str, Variables], Example], tuple[dict[str, Mean], dict[str, Variables]]]


def init_state(task: Task, objective: Objective, optimizers: Optimizers, ema_decay: float, batch: Batch, key: Key) -> State:
    """A run's state before its first step."""
    params, variables = objective.init(key, task.example(key, batch))
    opt_state = {player: optimizers[player].init(params[player]) for player in params}
    ema = _averaged(objective, params, variables) if ema_decay else {}
    return State(jnp.zeros((), jnp.int32), params, variables, opt_state, jax.tree.map(jnp.copy, ema), key)


def make_step(task: Task, objective: Objective, optimizers: Optimizers, ema_decay: float,
              augment: Callable[[Key, Batch], Batch] = lambda key, batch: batch, accumulate: int = 1,
              axis: str | None = None, remat: str = "none", privacy: Plan | None = None) -> Step:
    """One update of every player, in turn; logs come as scalars `<player>/<name>`.

    `accumulate` microbatches go through one after the other, for the memory of one; loss and gradient are those of the
    whole batch, whatever its masks. `axis` names the mapped axis of devices under `shard_map` or `pmap`, where each sees
    its own samples; under `jit` there is none. `remat`: see `models.rematerialise`. With `privacy` the step takes the secret
    key of its noise as a third argument, and batches are those of its `drawing`.
    """

    def step(state: State, batch: Batch, secret: Key | None = None) -> tuple[State, dict[str, Array]]:
        example_key, augment_key, play_key = step_keys(state.key, state.step)
        batch = augment(augment_key, batch)
        batches = _dealt(batch, objective.batches)
        examples: list[Example] = []
        params, variables, opt_state = dict(state.params), state.variables, dict(state.opt_state)
        logs: dict[str, Array] = {}
        for turn, player in enumerate(objective.players):
            if turn < len(batches) and privacy is None:
                examples.append(_examples(lambda rows: task.example(example_key, rows), batches[turn], accumulate))

            def terms_of(own: Tree, variables: dict[str, Variables], example: Example, player: str = player,
                         others: dict[str, Tree] = params, turn: int = turn) -> tuple[dict[str, Mean], dict[str, Variables]]:
                with rematerialised(remat):
                    return _checked(objective, objective.losses(others | {player: own}, player, variables, example,
                                                                jax.random.fold_in(play_key, turn)))

            if privacy is None:
                loss, terms, variables, grads = _gradient(terms_of, params[player], variables, examples[-1], accumulate,
                                                          axis)
            else:
                assert secret is not None

                def of_rows(own: Tree, rows: Batch, terms_of: Terms = terms_of) -> dict[str, Mean]:
                    return terms_of(own, state.variables, task.example(example_key, rows))[0]

                loss, terms, grads = patient_gradient(of_rows, params[player], batch, privacy,
                                                      jax.random.fold_in(secret, state.step), axis)
            updates, opt_state[player] = optimizers[player].update(grads, opt_state[player], params[player])
            params = params | {player: optax.apply_updates(params[player], updates)}
            logs |= {f"{player}/{name}": value for name, value in terms.items()}
            logs |= {f"{player}/loss": loss, f"{player}/grad_norm": optax.tree.norm(grads)}
        ema = state.ema
        if ema:
            # The first averages forget the random start as fast as a mean would.
            decay = jnp.minimum(ema_decay, (1 + state.step) / (10 + state.step))
            ema = jax.tree.map(lambda old, new: old + (1 - decay) * (new - old), ema,
                               _averaged(objective, params, variables))
        return replace(state, step=state.step + 1, params=params, variables=variables, opt_state=opt_state, ema=ema), logs

    return step


def step_keys(key: Key, step: Array | int) -> tuple[Key, Key, Key]:
    """What a step's examples, its augmentation and its players draw from; `key` is the run's."""
    example_key, augment_key, play_key = jax.random.split(jax.random.fold_in(key, step), 3)
    return example_key, augment_key, play_key


def _checked(objective: Objective, found: object) -> tuple[dict[str, Mean], dict[str, Variables]]:
    """What an objective's `losses` gives. Raises UserError, naming its file, for anything but means and variables."""
    name = f"{type(objective).__name__}.losses"
    if not (isinstance(found, tuple) and len(found) == 2 and all(isinstance(part, dict) for part in found)):
        raise UserError(file_of(objective), f"{name} gives {type(found).__name__}; give a dict of Mean (medjax.types) and "
                        "the dict of variables")
    for term, mean in found[0].items():
        if not isinstance(mean, Mean):
            raise UserError(file_of(objective), f"{name} gives {type(mean).__name__} for {term!r}; give Mean(total, count) "
                            "(medjax.types)")
        if jnp.ndim(mean.total) or jnp.ndim(mean.count):
            raise UserError(file_of(objective), f"{name} gives a Mean of shape {jnp.shape(mean.total)} for {term!r}; give "
                            "the sum over what counts")
    return found


def _averaged(objective: Objective, params: dict[str, Tree], variables: dict[str, Variables]) -> dict[str, dict[str, Tree]]:
    """What is averaged over the steps: the parameters of those who predict, and their batch statistics."""
    return {player: {"params": params[player], "variables": variables[player]} for player in objective.predictors}


def _dealt(batch: Batch, count: int) -> list[Batch]:
    """The batch in `count` batches. Rows are dealt out in turn, so that each lies on as many devices as the whole."""
    if count == 1:
        return [batch]
    dealt = jax.tree.map(lambda a: jnp.moveaxis(a.reshape(-1, count, *a.shape[1:]), 1, 0), dict(batch))
    return [jax.tree.map(lambda a, i=i: a[i], dealt) for i in range(count)]


def _examples(make_example: Callable[[Batch], Example], batch: Batch, count: int) -> Example:
    """The batch's example; in several microbatches, their examples stacked."""
    if count == 1:
        return make_example(batch)
    dealt = jax.tree.map(lambda a: jnp.moveaxis(a.reshape(-1, count, *a.shape[1:]), 1, 0), dict(batch))
    return jax.lax.map(make_example, dealt)


def _gradient(terms_of: Terms, params: Tree, variables: dict[str, Variables], examples: Example, count: int,
              axis: str | None) -> tuple[Array, dict[str, Array], dict[str, Variables], Tree]:
    """Loss, its terms, the variables and the gradient, of all microbatches and of the devices of `axis` together.

    How much counts in a term is known before its gradient is taken, so each microbatch adds its own share to the mean.
    """
    if axis:
        # Seen as different on each device, parameters get each device's own gradient; without, a sum N times too large.
        params = jax.tree.map(lambda a: jax.lax.pcast(a, axis, to="varying"), params)

    def counts_of(example: Example) -> dict[str, Array]:
        return {name: mean.count for name, mean in terms_of(params, variables, example)[0].items()}

    if count == 1:
        counts = None if axis is None else counts_of(examples)
    else:  # only the counts are computed: what else goes into the terms is not needed for them
        counts = jax.tree.map(lambda a: a.sum(0), jax.lax.map(counts_of, examples))
    if axis:
        counts = jax.lax.psum(counts, axis)

    def loss_fn(own: Tree, variables: dict[str, Variables],
                example: Example) -> tuple[Array, tuple[dict[str, Array], dict[str, Variables]]]:
        terms, variables = terms_of(own, variables, example)
        shares = {name: Mean(mean.total, mean.count if counts is None else counts[name]).value
                  for name, mean in terms.items()}
        return sum(shares.values(), jnp.zeros(())), (shares, variables)

    def one(variables: dict[str, Variables],
            example: Example) -> tuple[dict[str, Variables], tuple[Array, dict[str, Array], Tree]]:
        (loss, (shares, variables)), grads = jax.value_and_grad(loss_fn, has_aux=True)(params, variables, example)
        return variables, (loss, shares, grads)

    if count == 1:
        variables, sums = one(variables, examples)
    else:
        variables, stacked = jax.lax.scan(one, variables, examples)
        sums = jax.tree.map(lambda a: a.sum(0), stacked)
    loss, terms, grads = sums
    if axis:
        variables = jax.lax.pmean(variables, axis)
        loss, terms, grads = jax.lax.psum((loss, terms, grads), axis)
    return loss, terms, variables, grads


def make_predict(task: Task, objective: Objective) -> Callable[[State, Batch, Key], tuple[Example, Prediction,
                                                                                      dict[str, Array]]]:
    """The evaluation example, the prediction (with averaged weights where there are any), and its metrics per sample."""

    def predict(state: State, batch: Batch, key: Key) -> tuple[Example, Prediction, dict[str, Array]]:
        example = task.evaluation_example(key, batch)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, example.ids)
        pred = objective.predict(*state.for_use(), example.input, keys)
        return example, pred, task.measure(pred, example)

    return predict
