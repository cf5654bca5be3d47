"""Tables of weights: what an array is called in the original's code and in ours, how it is laid out, and both directions.

A family is a module of this package, found there by its file alone; `Family` says what it must have.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np

from medjax import registry
from medjax.types import UserError

Arrays = Mapping[str, np.ndarray]
"""The arrays of a network by name; ours by path, "params/Conv_0/kernel"."""


@dataclass(frozen=True)
class Layout:
    """How the axes of an array lie: `here` makes ours of the original's, `there` the original's of ours."""

    here: Callable[[np.ndarray], np.ndarray]
    there: Callable[[np.ndarray], np.ndarray]


def _kernel_here(array: np.ndarray) -> np.ndarray:
    return np.moveaxis(array, (0, 1), (-1, -2))


def _kernel_there(array: np.ndarray) -> np.ndarray:
    return np.moveaxis(array, (-1, -2), (0, 1))


def _mirrored_here(array: np.ndarray) -> np.ndarray:
    return _kernel_here(np.flip(array, tuple(range(2, array.ndim))).swapaxes(0, 1))


def _mirrored_there(array: np.ndarray) -> np.ndarray:
    there = _kernel_there(array).swapaxes(0, 1)
    return np.flip(there, tuple(range(2, there.ndim)))


def _halves_here(array: np.ndarray) -> np.ndarray:
    return np.roll(_kernel_here(array), array.shape[1] // 2, -2)


def _halves_there(array: np.ndarray) -> np.ndarray:
    return _kernel_there(np.roll(array, -(array.shape[-2] // 2), -2))


def _grid_here(array: np.ndarray, channels: int) -> np.ndarray:
    out = len(array)
    return array.reshape(out, channels, -1).swapaxes(1, 2).reshape(out, -1).T


def _grid_there(array: np.ndarray, channels: int) -> np.ndarray:
    out = array.shape[-1]
    return array.T.reshape(out, -1, channels).swapaxes(1, 2).reshape(out, -1)


AS_IT_IS = Layout(lambda array: array, lambda array: array)
NEGATED = Layout(np.negative, np.negative)
SCALAR = Layout(lambda array: array.reshape(()), lambda array: array.reshape((1,)))
"""A number, which PyTorch keeps as an array of one."""
KERNEL = Layout(_kernel_here, _kernel_there)
"""PyTorch's kernels to `(*k, in, out)`: of convolutions `(out, in, *k)`, of linear layers `(out, in)`; of transposed
convolutions `(in, out, *k)` to `(*k, out, in)`."""
MIRRORED = Layout(_mirrored_here, _mirrored_there)
"""A transposed convolution of stride 1 as the convolution with the mirrored kernel."""
HALVES_SWAPPED = Layout(_halves_here, _halves_there)
"""A kernel on two stacks of equally many channels that the original has in the other order."""


LINEAR = Layout(lambda array: array.T[None, None], lambda array: array[0, 0].T)
"""A linear layer `(out, in)` to a convolution with a kernel of one pixel `(1, 1, in, out)`."""
PER_CHANNEL = Layout(np.ravel, lambda array: array[:, None, None])
"""A number for each channel `(C, 1, 1)` to `(C,)`."""


def _shuffled_here(array: np.ndarray, factor: int) -> np.ndarray:
    return array.reshape(-1, factor**2, *array.shape[1:]).swapaxes(0, 1).reshape(array.shape)


def _shuffled_there(array: np.ndarray, factor: int) -> np.ndarray:
    return array.reshape(factor**2, -1, *array.shape[1:]).swapaxes(0, 1).reshape(array.shape)


def before_shuffle(factor: int = 2) -> tuple[Layout, Layout]:
    """Kernel and bias of a 2-D convolution before a pixel shuffle, which the original does with the channels outermost."""
    kernel = Layout(lambda array: _kernel_here(_shuffled_here(array, factor)),
                    lambda array: _shuffled_there(_kernel_there(array), factor))
    return kernel, Layout(partial(_shuffled_here, factor=factor), partial(_shuffled_there, factor=factor))


def from_grid(channels: int) -> Layout:
    """A linear layer on all voxels of a grid, which the original flattens with its `channels` first."""
    return Layout(partial(_grid_here, channels=channels), partial(_grid_there, channels=channels))


@dataclass(frozen=True)
class Row:
    """An array: what it is called there and here, and its layout. `here` is "" for what our network has no place for."""

    there: str
    here: str
    layout: Layout = AS_IT_IS


def layer(there: str, here: str, bias: bool = True, layout: Layout = KERNEL) -> list[Row]:
    """The rows of a convolution or linear layer of PyTorch."""
    rows = [Row(f"{there}.weight", f"params/{here}/kernel", layout)]
    return rows + [Row(f"{there}.bias", f"params/{here}/bias")] if bias else rows


def norm(there: str, here: str, batch: bool = False) -> list[Row]:
    """The rows of a normalisation of PyTorch with scale and bias; of `batch`, with its statistics."""
    rows = [Row(f"{there}.weight", f"params/{here}/scale"), Row(f"{there}.bias", f"params/{here}/bias")]
    return rows + [Row(f"{there}.running_mean", f"batch_stats/{here}/mean"),
                   Row(f"{there}.running_var", f"batch_stats/{here}/var"),
                   Row(f"{there}.num_batches_tracked", "")] if batch else rows


class Shapes(dict[str, tuple[int, ...]]):
    """The shapes of a file's arrays, from which a family reads its sizes. What is not there raises UserError."""

    def __init__(self, file: object, family: str, shapes: Mapping[str, tuple[int, ...]]):
        super().__init__(shapes)
        self._file, self._family = file, family

    def __missing__(self, name: str) -> tuple[int, ...]:
        there = ", ".join(list(self)[:3])
        raise UserError(self._file, f"has no {name}, so it has no weights of {self._family}; it has {there or 'nothing'} …")

    def count(self, pattern: str, start: int = 0) -> int:
        """How many of the names there are that a pattern ("blocks.{}.weight") makes of `start`, `start` + 1, …"""
        number = start
        while pattern.format(number) in self:
            number += 1
        return number - start


@runtime_checkable
class Family(Protocol):
    """Weights that one code trains: a module of `medjax/weights`.

    It may also have `LEFT_OUT`, a regular expression of names that files have and nothing reads, and
    `beside(file, settings)`: keys of the config that other files near the weights say. Raises UserError.
    """

    TITLE: str
    """What it is called."""
    CONFIG: str
    """What `--config` a run starts from, as train.py takes it."""
    PREFIXES: tuple[str, ...]
    """What training code may put before all names ("unet.")."""
    PREPARATION: str
    """What the original does to an image before the network, and whether the run does it; for the screen, in one line."""

    def settings(self, shapes: Shapes) -> dict[str, object]:
        """The keys of the run's config that follow from the family and the sizes in a file. Raises UserError."""

    def rows(self, model: Mapping[str, Any]) -> list[Row]:
        """The table of a network with these keys of `config.model`, in the order of the original's file."""


def find(name: str) -> Family:
    """The family called `name`. Raises UserError where there is none, or its module lacks something."""
    known = registry.modules("weights")
    if name not in known:
        raise UserError("--from", f"unknown {name!r}; choose from {', '.join(known)}")
    module = registry.loaded("weights")[name]
    registry.check_members("weights", name, module, Family)
    return cast(Family, module)


def without_prefix(arrays: Arrays, prefixes: Sequence[str], left_out: str = "") -> dict[str, np.ndarray]:
    """The arrays whose names begin as training code has them, without that; all of them where none does.

    Names in which the regular expression `left_out` is found are left out.
    """
    for prefix in ("module.", *prefixes):
        found = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
        arrays = found or arrays
    return {name: array for name, array in arrays.items() if not left_out or not re.search(left_out, name)}


def to_ours(file: object, rows: Sequence[Row], arrays: Arrays, needed: Mapping[str, tuple[int, ...]],
            hint: str = "") -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """The arrays of a file under our paths, for a network with the shapes `needed`; and what it has no place for.

    Raises UserError for the first array that is missing, of another shape, or left over; `hint` says what would help.
    """
    found, kept = {}, {}
    for row in rows:
        if not row.here:
            if row.there in arrays:
                kept[row.there] = int(arrays[row.there])
            continue
        wanted = _shape_there(row, needed)
        if row.there not in arrays:
            raise UserError(file, f"has no {row.there}, and the network needs it with shape {wanted}{hint}")
        if arrays[row.there].shape != wanted:
            raise UserError(file, f"{row.there} has shape {arrays[row.there].shape}, and the network needs {wanted}{hint}")
        found[row.here] = np.array(row.layout.here(arrays[row.there]), np.float32, order="C")
    for name in _left_over(arrays, [row.there for row in rows]):
        raise UserError(file, f"has {name} with shape {arrays[name].shape}, for which the network has no place{hint}")
    for path in _left_over(needed, [row.here for row in rows]):
        raise UserError(file, f"has nothing for {path} of shape {needed[path]}, which the network needs{hint}")
    return found, kept


def to_theirs(run: object, rows: Sequence[Row], ours: Arrays, kept: Mapping[str, int]) -> dict[str, np.ndarray]:
    """The original's arrays of ours. Raises UserError where the run's network is not the family's."""
    found = {}
    for row in rows:
        if row.here and row.here not in ours:
            raise UserError(run, f"its network has no {row.here}, which goes to {row.there}; give another --from")
        found[row.there] = (np.array(row.layout.there(ours[row.here]), order="C") if row.here
                            else np.array(kept.get(row.there, 0)))
    for path in _left_over(ours, [row.here for row in rows]):
        raise UserError(run, f"its network has {path} of shape {ours[path].shape}, which the original has not; give another "
                        "--from")
    return found


def _left_over(there: Mapping[str, object], named: Sequence[str]) -> Iterator[str]:
    known = set(named)
    return (name for name in there if name not in known)


def _shape_there(row: Row, needed: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    """The shape that an array of the original needs."""
    if row.here not in needed:
        raise UserError("--config", f"its network has no {row.here}, which {row.there} goes to; leave --config out, or give "
                        "the family's own")
    shape: tuple[int, ...] = row.layout.there(np.zeros(needed[row.here], np.int8)).shape
    return shape
