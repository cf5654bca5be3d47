"""A trained run as one function of arrays, in physical units from end to end, and as StableHLO that JAX alone can run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from medjax.infer.predict import TILE, make_program
from medjax.ops.conv import jax_convolutions
from medjax.train.run import Run
from medjax.types import Array, Batch, Port, State, UserError

PLATFORMS = ("cpu", "cuda", "tpu")
MULTIPLES = (1, 2, 4, 8, 16, 32, 64, 128)
LEAST = {2: 32, 3: 16}  # voxels along each axis of the images that programs are checked on
UNSUITABLE = (TypeError, ValueError, NotImplementedError, UserError, jax.errors.InconclusiveDimensionOperation,
              jax.errors.ConcretizationTypeError)
"""What JAX raises where a program can't be traced for the sizes that are asked for."""

Function = Callable[..., Array]
Arrays = list[np.ndarray]
Call = Callable[[Sequence[np.ndarray]], np.ndarray]


@dataclass(frozen=True)
class Program:
    """What a run does in use: `function` of arrays, one for each of `inputs`, to one array.

    `size` of the images is in whole numbers, or () where it is free; then the sizes are multiples of `multiple`. With `pads`
    an image of another size may be padded with its edge, and the result cut: it is what `apply` gives.
    """

    run: Run
    function: Function
    inputs: tuple[Port, ...]
    output: Port
    size: tuple[int, ...]
    multiple: int
    pads: bool

    def sizes(self, larger: int = 0) -> tuple[int, ...]:
        """Sizes of an image that it takes, no two axes alike where they are free; a larger one on demand."""
        ndim = self.run.task.input_ndim
        first = -(-LEAST[ndim] // self.multiple) + larger
        return self.size or tuple((first + axis) * self.multiple for axis in range(ndim))

    def scale(self) -> tuple[int, ...]:
        """How many voxels of the result there are for one of the image, by axis; () where it has another grid."""
        size = self.sizes()
        shapes = [jax.ShapeDtypeStruct(array.shape, array.dtype) for array in self.example(size)]
        space = jax.eval_shape(self.function, *shapes).shape[1:-1]
        on_grid = self.inputs[0].shape[:-1] == tuple(free(size, self.size, self.multiple))
        if not on_grid or len(space) != len(size) or any(made % given for made, given in zip(space, size, strict=True)):
            return ()
        return tuple(made // given for made, given in zip(space, size, strict=True))

    def example(self, size: tuple[int, ...], batch: int = 1) -> Arrays:
        """Random arrays that it takes, with the values of training images."""
        random, found = np.random.default_rng(0), []
        for port in _ports(self.run, size):
            shape = (batch, *(n if isinstance(n, int) else 8 for n in port.shape))
            known = self.run.config.data.domain.percentiles if port.name == "image" else port.values
            values = random.integers(0, 2, shape) if port.binary else random.uniform(*known, shape)
            found.append(values.astype(np.float32))
        return found


def make_exportable(run: Run, state: State, size: tuple[int, ...] = (), spacing_mm: float = 0.0) -> tuple[Program, bytes]:
    """The program of a run, and as StableHLO for `PLATFORMS`, serialised by `jax.export`.

    Images may have any size, or multiples of the least number that the network can be traced for; `size` fixes it. In
    tasks whose images `apply` takes in tiles it is a multiple of `TILE`, as there. `spacing_mm` is the voxel size, for
    tasks that depend on it and were trained on several. Raises UserError for what can't be exported.
    """
    output = run.task.exported_output(run.config.data.channels)
    if size and len(size) != run.task.input_ndim:
        raise UserError("--size", f"{len(size)} numbers, and the images have {run.task.input_ndim} axes; give one for each")
    function = _function(run, state, size, spacing_mm)
    if size:
        program = Program(run, function, _ports(run, size), output, size, 1, False)
        return program, _serialised(program)
    problem: Exception | None = None
    for multiple in (m for m in MULTIPLES if not run.task.tileable or m >= TILE):
        ports = _ports(run, free((None,) * run.task.input_ndim, (), multiple))
        program = Program(run, function, ports, output, (), multiple, run.task.tileable)
        try:
            return _padded_alike(program), _serialised(program)
        except UNSUITABLE as error:
            problem = error
    raise UserError("--size", "the network takes images of one size alone; give it, e.g. --size=256,256") from problem


def free(size: Sequence[object], fixed: Sequence[int], multiple: int) -> tuple[int | str, ...]:
    """The sizes of images as a port has them: those that are fixed, or text as "16*h"."""
    if fixed:
        return tuple(fixed)
    return tuple(name if multiple == 1 else f"{multiple}*{name}" for name in "dhw"[-len(size):])


def live(program: Program) -> Call:
    """The program as `apply` runs it in this process."""
    compiled = jax.jit(program.function)
    return lambda arrays: np.asarray(compiled(*arrays))


def stablehlo(data: bytes) -> Call:
    """The exported program, as JAX reads it back."""
    exported = jax.export.deserialize(bytearray(data))
    return lambda arrays: np.asarray(exported.call(*arrays))


def difference(program: Program, call: Call, batch: int = 2) -> float:
    """The largest difference between `call` and the live program on random images of two sizes, of `batch` and of one.

    It is a part of the range, or of the largest value where that is larger; probabilities are compared as they are.
    """
    reference, found = live(program), []
    for number, count in enumerate((batch, 1)):
        arrays = program.example(program.sizes(larger=number), count)
        wanted, made = reference(arrays), call(arrays)
        if wanted.shape != made.shape:
            return float("inf")
        found.append(float(np.abs(made - wanted).max()) / max(_reach(program), float(np.abs(wanted).max())))
    return max(found) if np.isfinite(found).all() else float("inf")


def _reach(program: Program) -> float:
    """The range of the values that come out."""
    low, high = program.run.task.data_range
    return high - low if program.output.unit == "{units}" else 1.0


def _ports(run: Run, size: Sequence[int | str]) -> tuple[Port, ...]:
    return run.task.exported_inputs(run.config.data.channels, size)


def _function(run: Run, state: State, size: tuple[int, ...], spacing_mm: float) -> Function:
    """The run's program on arrays in physical units, the only ones of a batch that are not told already."""
    state = jax.tree.map(jnp.asarray, jax.device_get(replace(state, key=jax.random.key_data(state.key))))
    program, known = make_program(run, state), _spacing(run, spacing_mm)
    names = [port.name for port in _ports(run, size or free((None,) * run.task.input_ndim, (), TILE))]

    def function(*arrays: Array) -> Array:
        rows = jnp.ones(arrays[0].shape[0])
        batch: Batch = {"image": jnp.zeros((arrays[0].shape[0], *size, 1)), **dict(zip(names, arrays, strict=True)),
                        "slope": rows, "intercept": 0 * rows, "id": rows.astype(jnp.uint32), "count": rows,
                        "spacing_mm": rows[:, None] * known}
        return run.task.exported(program(batch), batch)

    return function


def _spacing(run: Run, given: float) -> np.ndarray:
    """The voxel size along each axis, `(1, ndim)`: as given, or that of all training images; NaN where it isn't known."""
    known = run.config.data.domain.spacing_mm
    value = given or (known[0] if known and np.isclose(*known) else float("nan"))
    if run.task.kind == "sinogram" and np.isnan(value):
        sizes = " to ".join(f"{size:g}" for size in known)
        raise UserError("--spacing", f"the run was trained on pixels of {sizes} mm, and the scanner that is exported has one "
                        f"size; give it, e.g. --spacing={known[0]:g}")
    return np.full((1, run.task.ndim), value, np.float32)


def _serialised(program: Program) -> bytes:
    scope = jax.export.SymbolicScope()
    shapes = [jax.ShapeDtypeStruct(jax.export.symbolic_shape(",".join(map(str, ("b", *port.shape))), scope=scope), jnp.float32)
              for port in program.inputs]
    # A function of its own: what was traced before, with other convolutions, is not to be found again.
    with jax_convolutions():
        exported = jax.export.export(jax.jit(lambda *arrays: program.function(*arrays)), platforms=PLATFORMS)(*shapes)
    return bytes(exported.serialize())


def _padded_alike(program: Program) -> Program:
    """The program, with `pads` where padding an image's edge outside of it makes no difference to the result."""
    if program.multiple == 1 or program.pads:
        return program
    whole = program.sizes()
    arrays = program.example(whole)
    cut = (slice(None), *(slice(0, size - 1) for size in whole))
    odd = [array[cut] for array in arrays]
    pads = [(0, 0), *((0, 1) for _ in whole), (0, 0)]
    run = live(program)
    try:
        alone, padded = run(odd), run([np.pad(array, pads, mode="edge") for array in odd])
    except UserError:  # the network takes multiples alone
        return program
    if alone.ndim == padded.ndim == len(pads) and alone.shape != padded.shape:
        padded = padded[cut]
    alike = alone.shape == padded.shape and np.abs(alone - padded).max() <= 1e-5 * max(_reach(program), np.abs(alone).max())
    return replace(program, pads=bool(alike))


def signature(port: Port) -> list[Any]:
    """The shape of a port as JSON has it, the batch first."""
    return ["b", *port.shape]
