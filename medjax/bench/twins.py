"""What the arrays of a network are called in its equal in PyTorch (`peers/networks.py`), and how they lie there."""

from collections.abc import Mapping, Sequence

import jax
import numpy as np
from ml_collections import ConfigDict

from medjax.types import Tree

ENTRIES = {"weight": ("params", "kernel", "scale"), "bias": ("params", "bias"), "running_mean": ("batch_stats", "mean"),
           "running_var": ("batch_stats", "var")}


def to_torch(model: ConfigDict, scale: Sequence[int], variables: Tree) -> dict[str, np.ndarray]:
    """Flax's arrays of a network under PyTorch's names and in its layout. Raises ValueError unless each has one name."""
    flat = {"/".join(key.key for key in path): np.asarray(leaf) for path, leaf in
            jax.tree_util.tree_flatten_with_path(variables)[0]}
    pairs = {f"{theirs}.{entry}": ours for theirs, layer in _layers(model, scale).items()
             for entry, (collection, *leaves) in ENTRIES.items() for leaf in leaves
             if (ours := f"{collection}/{layer}/{leaf}") in flat}
    if sorted(pairs.values()) != sorted(flat):
        raise ValueError(f"without a name in PyTorch: {', '.join(sorted(set(flat) - set(pairs.values())))}")
    factors = _shuffled(model, scale)
    return {theirs: _laid_out(flat[ours], factors.get(theirs.partition(".")[0], 1)) for theirs, ours in pairs.items()}


def _layers(model: ConfigDict, scale: Sequence[int]) -> Mapping[str, str]:
    """PyTorch's layers and Flax's, which counts each kind in the order of calls."""
    if model.name == "unet":
        return _unet(model.depth, model.block, model.stride)
    if model.name == "edsr":
        return _edsr(model.blocks, max(scale))
    return _redcnn(model.depth)


def _unet(depth: int, block: str, stride: int) -> dict[str, str]:
    blocks = [*(f"down.{level}" for level in range(depth)), *(f"up.{level}" for level in reversed(range(depth - 1)))]
    lifts = {f"up.{level}": f"lift.{level}" for level in range(depth - 1)}
    pairs: dict[str, str] = {}
    units = convs = norms = 0
    if stride > 1:
        pairs, convs = {"enter": "Conv_0"}, 1
    for name in blocks:
        if name in lifts:
            pairs[lifts[name]], convs = f"Conv_{convs}", convs + 1
        pairs |= _unit(f"{name}.first", units)
        if block == "plain":
            pairs, units = pairs | _unit(f"{name}.second", units + 1), units + 2
        else:
            pairs |= {f"{name}.second": f"Conv_{convs}", f"{name}.shortcut": f"Conv_{convs + 1}",
                      f"{name}.norm": f"Norm_{norms}"}
            units, convs, norms = units + 1, convs + 2, norms + 1
    return pairs | {"head": f"Conv_{convs}"}


def _redcnn(depth: int) -> dict[str, str]:
    return ({f"encode.{i}": f"Conv_{i}" for i in range(depth)}
            | {f"decode.{i}": f"ConvTranspose_{i}" for i in range(depth - 1)} | {"tail": f"Conv_{depth}"})


def _edsr(blocks: int, factor: int) -> dict[str, str]:
    pairs = {"head": "Conv_0"}
    for i in range(blocks):
        pairs |= _unit(f"blocks.{i}.first", i) | {f"blocks.{i}.second": f"Conv_{i + 1}", f"blocks.{i}.norm": f"Norm_{i}"}
    last = ["body", *(["enlarge"] if factor > 1 else []), "tail"]
    return pairs | {name: f"Conv_{blocks + 1 + i}" for i, name in enumerate(last)}


def _unit(name: str, number: int) -> dict[str, str]:
    """The layers of a ConvNormAct."""
    return {f"{name}.conv": f"ConvNormAct_{number}/Conv_0", f"{name}.norm": f"ConvNormAct_{number}/Norm_0"}


def _shuffled(model: ConfigDict, scale: Sequence[int]) -> dict[str, int]:
    """PyTorch's layers whose channels a pixel shuffle spreads over the image, with the number of pixels it makes of one."""
    if model.name == "edsr":
        return {"enlarge": int(np.prod(scale))}
    return {"head": model.stride ** len(scale)} if model.name == "unet" and model.stride > 1 else {}


def _laid_out(array: np.ndarray, factors: int) -> np.ndarray:
    """(*k, in, out) as (out, in, *k), of transposed convolutions (*k, out, in) as (in, out, *k).

    A pixel shuffle takes (factor, factor, C) channels here and (C, factor, factor) in PyTorch.
    """
    array = array.reshape(*array.shape[:-1], factors, -1).swapaxes(-1, -2).reshape(array.shape)
    return np.moveaxis(array, (-1, -2), (0, 1)) if array.ndim > 2 else array
