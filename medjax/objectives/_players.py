"""What objectives share: running a network in training and in use, and the weighted sum of named losses."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from medjax.measures.losses import sample_mean
from medjax.registry import file_of
from medjax.types import (
    Array,
    CoarsensTargets,
    CoarseOutput,
    Context,
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
)

SOWN, COARSE = "losses", "coarse"


def parse_loss(text: str) -> tuple[tuple[str, float], ...]:
    """Names and weights from "charbonnier + 0.2*ssim"."""
    weights = []
    for term in text.split("+"):
        weight, _, name = term.strip().rpartition("*")
        try:
            weights.append((name.strip(), float(weight or 1)))
        except ValueError:
            raise UserError("config.objective.loss", f"{term.strip()!r} is not NAME or WEIGHT*NAME") from None
    return tuple(weights)


def weighted(losses: Mapping[str, Mean], text: str) -> dict[str, Mean]:
    """The terms of the sum that `text` asks for, by name."""
    terms = {}
    for name, weight in parse_loss(text):
        if name not in losses:
            raise UserError("config.objective.loss", f"unknown {name!r}; choose from {', '.join(losses)}")
        if not isinstance(losses[name], Mean):
            raise UserError("config.objective.loss", f"{name!r} is a {type(losses[name]).__name__} where a Mean is needed "
                            "(medjax.types; see medjax/measures/losses.py)")
        terms[name] = losses[name].times(weight)
    return terms


def initial(model: Model, key: Key, *args: Array | Context) -> tuple[Params, Variables]:
    """A network's first parameters, and its other variables but for what it sows."""
    variables = model.init(key, *args)
    return variables["params"], {name: found for name, found in variables.items() if name not in ("params", SOWN, COARSE)}


def trained(model: Model, params: Params, variables: Variables, *args: Array | Context,
            key: Key) -> tuple[Array, Variables, dict[str, Array]]:
    """A network's output in training, its other variables after it, and the losses that it sowed, `(B,)` each.

    Raises UserError for a network that has outputs of coarser levels, too.
    """
    output, coarse, changed, sown = trained_at_all_levels(model, params, variables, *args, key=key)
    if coarse:
        raise UserError("config.model.deep_supervision", "this objective does not train the outputs of coarser levels; set "
                        "it to 0, or use supervised or noise2noise")
    return output, changed, sown


def trained_at_all_levels(model: Model, params: Params, variables: Variables, *args: Array | Context,
                          key: Key) -> tuple[Array, tuple[CoarseOutput, ...], Variables, dict[str, Array]]:
    """As `trained`, with the outputs of coarser levels, the finest first, in the second place."""
    dropout, sample = jax.random.split(key)
    output, changed = model.apply({"params": params, **variables}, *args, train=True, mutable=[*variables, SOWN, COARSE],
                                  rngs={"dropout": dropout, "sample": sample})
    _check_output(model, output)
    changed = dict(changed)
    sown = {name: sum(values) for name, values in changed.pop(SOWN, {}).items()}
    return output, changed.pop(COARSE, {}).get("outputs", ()), changed, sown


def deeply_weighted(task: Task, text: str, output: Array, coarse: Sequence[CoarseOutput], example: Example,
                    sown: Mapping[str, Array]) -> dict[str, Mean]:
    """The terms of the sum that `text` asks for, with the task's own at every level: the output's, and those of `coarse`.

    A level counts half as much as the next finer one, all together as much as the output alone would (nnU-Net, Isensee et
    al., 2021). The terms are apart by level: how much counts differs. Raises UserError where the task's losses don't fit
    a coarser grid.
    """
    offered = task.losses(output, example)
    terms = weighted(offered | sown_losses(sown, example.mask), text)
    if not coarse:
        return terms
    if not isinstance(task, CoarsensTargets):
        raise UserError("config.model.deep_supervision", f"the losses of {type(task).__name__} don't fit coarser levels; "
                        "set it to 0")
    total = sum(0.5**level for level in range(len(coarse) + 1))
    found = {name: term.times(1 / total) if name in offered else term for name, term in terms.items()}
    for level, each in enumerate(coarse, 1):
        there = task.losses(each.image, task.on_coarser_grid(example, each.factors))
        for name in (name for name in terms if name in offered and name not in there):
            sizes = "x".join(map(str, each.image.shape[1:-1]))
            raise UserError("config.model.deep_supervision", f"the loss {name!r} doesn't fit the level of {sizes} voxels; "
                            "give fewer levels, or larger config.data.patch")
        found |= {f"{name}_coarser{level}": term.times(0.5**level / total)
                  for name, term in weighted(terms | there, text).items() if name in offered}
    return found


def _check_output(model: Model, output: object) -> None:
    """Raises UserError, naming the model's file, for an output that is no image with channels and no vector."""
    if not isinstance(output, jax.Array):
        raise UserError(file_of(model), f"{type(model).__name__} gives {type(output).__name__}; give one array")
    ndim = getattr(model, "ndim", output.ndim - 2)
    if output.ndim not in (2, ndim + 2):
        raise UserError(file_of(model), f"{type(model).__name__} gives an array of shape {output.shape}; give "
                        f"(B, {', '.join('DHW'[-ndim:])}, C), the channels last, or (B, C)")


def sown_losses(sown: Mapping[str, Array], mask: Array) -> dict[str, Mean]:
    """What a network sowed, over the samples that count."""
    return {name: sample_mean(values, mask) for name, values in sown.items()}


def used(model: Model, params: Params, variables: Variables, given: NetworkInput) -> Prediction:
    """A network's output in use."""
    return Prediction(model.apply({"params": params, **variables}, given.image, given.context))


def counting(mask: Array) -> Array:
    """1 for samples of which anything counts, else 0, `(B,)`."""
    return mask.any(tuple(range(1, mask.ndim))).astype(jnp.float32)


def per_sample(values: Array) -> Array:
    """The mean of each sample's values, `(B,)`."""
    return values.reshape(values.shape[0], -1).mean(1)
